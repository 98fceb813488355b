"""Ways to break an artifact: any bytes of any file, any field of JSON, TOML and safetensors."""

import copy
import json
import struct
import tomllib
from collections.abc import Callable
from typing import Any

import tomli_w
from hypothesis import strategies as st

from tests.artifact.parts import SUMS, SavedFiles

Mutated = tuple[str, SavedFiles]
"""The name of the changed file, and all files."""

ODD: list[object] = [
    None,
    True,
    False,
    -1,
    0,
    1,
    3,
    64,
    10**6,
    2**31,
    2**63,
    10**400,
    -0.0,
    0.5,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "0",
    "float32",
    "bfloat16",
    "I64",
    "BF16",
    "eager",
    "jit",
    "onednn",
    "os.system",
    "../../etc/passwd",
    "/etc/passwd",
    "weights.safetensors",
    "model.pt",
    "evil/kernels",
    "\0",
    "\ud800",
    "x" * 10_000,
    [],
    {},
    [[]],
    {"a": {}},
    {"dtype": "float32"},
    [0, 8],
    ["states", "pooled"],
]


def bytes_of(files: SavedFiles) -> st.SearchStrategy[Mutated]:
    """Flip, cut, append, overwrite or repeat bytes, or replace a file by another one."""

    @st.composite
    def mutated(draw: st.DrawFn) -> Mutated:
        name = draw(st.sampled_from(sorted(files.files)))
        data = bytearray(files.files[name])
        at = draw(st.integers(0, len(data) - 1))
        kind = draw(st.sampled_from(["flip", "cut", "lengthen", "overwrite", "repeat", "other"]))
        if kind == "flip":
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "cut":
            del data[at:]
        elif kind == "lengthen":
            data += draw(st.binary(min_size=1, max_size=64))
        elif kind == "overwrite":
            some = draw(st.binary(min_size=1, max_size=64))
            data[at : at + len(some)] = some
        elif kind == "repeat":
            data[at:at] = data[at : at + draw(st.integers(1, 200))]
        else:
            data = bytearray(files.files[draw(st.sampled_from(sorted(files.files)))])
        return name, SavedFiles({**files.files, name: bytes(data)})

    return mutated()


def fields_of(files: SavedFiles) -> st.SearchStrategy[Mutated]:
    """Replace, drop or add a field of JSON, TOML, or a header of safetensors."""
    names = [name for name in files.files if _codec(name) is not None]

    @st.composite
    def mutated(draw: st.DrawFn) -> Mutated:
        name = draw(st.sampled_from(sorted(names)))
        codec = _codec(name)
        assert codec is not None
        read, write = codec
        table = copy.deepcopy(read(files.files[name]))
        for _ in range(draw(st.integers(1, 3))):
            parent, key = draw(st.sampled_from(_places(table)))
            kind = draw(st.sampled_from(["replace", "replace", "drop", "add", "swap"]))
            if kind == "replace":
                parent[key] = copy.deepcopy(draw(st.sampled_from(ODD)))
            elif kind == "drop":
                del parent[key]
            elif kind == "swap":
                other, place = draw(st.sampled_from(_places(table)))
                parent[key] = copy.deepcopy(other[place])
            elif isinstance(parent, dict):
                parent[draw(st.sampled_from(["a", "__class__", "", "auto_map", "file"]))] = 1
            else:
                parent.append(copy.deepcopy(draw(st.sampled_from(ODD))))
            if not _places(table):
                break
        try:
            data = write(table, files.files[name])
        except (TypeError, ValueError, AttributeError):  # TOML can't represent it
            data = b""
        return name, SavedFiles({**files.files, name: data})

    return mutated()


def lines_of_sums(files: SavedFiles) -> st.SearchStrategy[Mutated]:
    """Drop, repeat, rename or move lines of the list of checksums."""

    @st.composite
    def mutated(draw: st.DrawFn) -> Mutated:
        lines = files.files[SUMS].decode().splitlines()
        at = draw(st.integers(0, len(lines) - 1))
        kind = draw(st.sampled_from(["drop", "repeat", "rename", "hash", "move"]))
        digest, name = lines[at].split("  ")
        if kind == "drop":
            del lines[at]
        elif kind == "repeat":
            lines.append(lines[at])
        elif kind == "rename":
            names = ["../a", "/etc/passwd", ".", "..", "a/b", "", " a", "ARTIFACT.JSON", SUMS]
            lines[at] = f"{digest}  {draw(st.sampled_from(names))}"
        elif kind == "hash":
            other = draw(st.sampled_from(["", "0" * 64, digest.upper(), digest + "0", "é" * 64]))
            lines[at] = f"{other}  {name}"
        else:
            lines.insert(0, lines.pop(at))
        return SUMS, SavedFiles({**files.files, SUMS: "\n".join(lines).encode()})

    return mutated()


def _codec(
    name: str,
) -> tuple[Callable[[bytes], Any], Callable[[Any, bytes], bytes]] | None:
    if name.endswith(".json"):
        return json.loads, lambda table, _: json.dumps(table).encode()
    if name.endswith(".toml"):
        return (lambda data: tomllib.loads(data.decode())), (
            lambda table, _: tomli_w.dumps(table).encode("utf-8", "surrogatepass")
        )
    if name.endswith(".safetensors"):
        return _header, _with_header
    return None


def _header(data: bytes) -> Any:
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length])


def _with_header(table: Any, data: bytes) -> bytes:
    (length,) = struct.unpack("<Q", data[:8])
    text = json.dumps(table).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


def _places(table: Any) -> list[tuple[Any, Any]]:
    """List every field with its parent, nested ones included."""
    keys = list(table) if isinstance(table, dict) else range(len(table))
    found: list[tuple[Any, Any]] = []
    for key in keys:
        found.append((table, key))
        if isinstance(table[key], dict | list):
            found += _places(table[key])
    return found
