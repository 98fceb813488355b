"""Broken and malicious artifacts raise a clear error before their content is used."""

import json
import os
import re
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

import cpuaccel
from cpuaccel.artifact import contents
from tests.artifact.parts import SUMS, SavedFiles, edit_json, needs_torch_2, sign
from tests.fake_backends import encoder

FILES = [
    SUMS,
    "artifact.json",
    "pipeline.toml",
    "report.json",
    "weights.safetensors",
    "examples.safetensors",
    "model.pt",
]


def load_error(folder: Path) -> str:
    with pytest.raises(cpuaccel.ArtifactError) as raised:
        cpuaccel.load(folder, encoder())
    message = str(raised.value)
    assert message.startswith(f"cannot load {folder}: ")
    assert len(message) < 1500
    return message


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_or_changed_file(name: str, encoder_folder: Path) -> None:
    path = encoder_folder / name
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    assert name in load_error(encoder_folder)
    path.write_bytes(data[:40] + bytes([data[40] ^ 1]) + data[41:])
    assert name in load_error(encoder_folder) or name == SUMS


def test_the_error_about_a_changed_file(encoder_folder: Path) -> None:
    (encoder_folder / "model.pt").write_bytes(b"changed")
    assert load_error(encoder_folder).endswith(
        "model.pt was changed: its checksum differs from SHA256SUMS. Save it again, or download it "
        "again"
    )


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file(name: str, encoder_folder: Path) -> None:
    (encoder_folder / name).unlink()
    expected = "it has no SHA256SUMS" if name == SUMS else f"{name} is missing"
    assert expected in load_error(encoder_folder)


@pytest.mark.parametrize("kind", ["link", "link to a folder", "pipe", "folder"])
@pytest.mark.parametrize("name", [SUMS, "weights.safetensors", "model.pt"])
def test_a_file_that_is_not_regular_is_not_read(
    kind: str, name: str, encoder_folder: Path, tmp_path: Path
) -> None:
    path = encoder_folder / name
    aside = tmp_path / "aside"
    path.rename(aside)
    if kind == "link":
        path.symlink_to(aside)  # with the right contents
    elif kind == "link to a folder":
        path.symlink_to(tmp_path)
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    assert f"{name} " in load_error(encoder_folder)


@pytest.mark.parametrize(
    "line",
    [
        "../outside",
        "/etc/passwd",
        "sub/file",
        "..",
        ".hidden",
        "a\\b",
        "a\0b",
        "weights.safetensors",
        "x" * 300,
    ],
)
def test_names_can_only_refer_to_files_in_the_folder(line: str, encoder_folder: Path) -> None:
    with (encoder_folder / SUMS).open("a") as file:
        file.write(f"{'0' * 64}  {line}\n")
    assert "the name of a file in the folder, each named once" in load_error(encoder_folder)


@pytest.mark.parametrize("text", ["", "\n", "0" * 64, "g" * 64 + "  artifact.json", "\xff\xfe"])
def test_an_invalid_list_of_checksums(text: str, encoder_folder: Path) -> None:
    (encoder_folder / SUMS).write_text(text, encoding="latin-1")
    assert SUMS in load_error(encoder_folder)


def test_a_newer_format_is_reported_before_other_problems(encoder_folder: Path) -> None:
    (encoder_folder / "artifact.json").write_text(
        json.dumps({"format": "cpuaccel artifact", "version": 3, "all": "new"})
    )
    sign(encoder_folder)
    assert load_error(encoder_folder).endswith(
        f"it has format 3, but cpuaccel {cpuaccel.__version__} reads format 2. Upgrade cpuaccel, "
        "or save it again with this version"
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        "{",
        "[" * 100_000,
        '{"a":' * 100_000,
        '{"version": 1}',
        '{"format": "cpuaccel artifact", "version": "1"}',
        '{"format": "cpuaccel artifact", "version": 1}',
        '{"format": "cpuaccel artifact", "version": ' + "9" * 5000 + "}",
        "\ud800",
    ],
    ids=range(11),
)
@pytest.mark.parametrize("name", ["artifact.json", "pipeline.toml"])
def test_an_invalid_text_file(name: str, text: str, encoder_folder: Path) -> None:
    (encoder_folder / name).write_bytes(text.encode("utf-8", "surrogatepass"))
    sign(encoder_folder)
    assert name in load_error(encoder_folder)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"extra": 1}, "invalid at extra"),
        ({"calls": []}, "calls are empty, and there is no prompt"),
        ({"calls__0__constants": {"a": [1]}}, "invalid at calls.0.constants"),
        ({"calls__0__constants": {"a": {"dtype": "load"}}}, "invalid at calls.0.constants"),
        ({"calls__0__tensors": ["input_ids", "other"]}, "lacks the tensor '0/inputs/other'"),
        ({"calls__0__tensors": []}, "forward requires 'input_ids'"),
        ({"calls__0__answers": ["states"]}, "does not reproduce the stored output"),
        ({"calls__0__answers__0": "other"}, "does not reproduce the stored output"),
        ({"settings__tolerance": -1}, "invalid at settings.tolerance"),
        ({"settings__tolerance": float("nan")}, "invalid at settings.tolerance"),
        ({"settings__strict": "os.system('true')"}, "invalid at settings.strict"),
        ({"tied": {"norm.weight": "nothing"}}, "lack the tensor that norm.weight shares"),
        ({"model__model_type": 3}, "invalid at model.model_type"),
        ({"model__attention": "someone/kernels"}, "invalid at model.attention"),
    ],
    ids=str,
)
def test_invalid_fields(changes: dict[str, object], expected: str, encoder_folder: Path) -> None:
    edit_json(encoder_folder, "artifact.json", **changes)
    assert expected in load_error(encoder_folder)


def header(text: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(text) if length is None else length) + text + b"1234"


def false_header(dtype: str, shape: list[int], end: int) -> bytes:
    return header(
        json.dumps({"a": {"dtype": dtype, "shape": shape, "data_offsets": [0, end]}}).encode()
    )


@pytest.mark.parametrize(
    "data",
    [
        b"",
        header(b"{}", length=2**63),
        header(b"{}", length=10**9),
        header(b"{}"),
        header(b"[" * 5),
        header(b'{"a":' * 18_000),
        false_header("F32", [10**12], 4 * 10**12),
        false_header("F32", [2**32, 2**32], 4),
        false_header("F99", [1], 4),
    ],
    ids=range(9),
)
@pytest.mark.parametrize("name", ["weights.safetensors", "examples.safetensors"])
def test_false_safetensors_headers(name: str, data: bytes, encoder_folder: Path) -> None:
    (encoder_folder / name).write_bytes(data)
    sign(encoder_folder)
    message = load_error(encoder_folder)
    assert name in message or "the saved weights of MaskedEncoder do not fit" in message


def test_a_file_larger_than_the_free_memory_is_not_read(encoder_folder: Path) -> None:
    path = encoder_folder / "weights.safetensors"
    os.truncate(path, 2**43)  # sparse: uses no disk space
    message = load_error(encoder_folder)
    assert f"(half of the free memory), got {2**43}" in message
    path = encoder_folder / "artifact.json"
    os.truncate(path, contents.MAX_TEXT + 1)
    assert "the limit for text files" in load_error(encoder_folder)


def test_changed_weights_are_found_by_their_outputs(
    encoder_folder: Path,
) -> None:
    path = encoder_folder / "weights.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[:-64] + b"\0\0\x80\x3f" * 16)
    sign(encoder_folder)
    assert "the model does not reproduce the stored output" in load_error(encoder_folder)


def test_not_a_folder(tmp_path: Path) -> None:
    assert "can't be opened: No such file or directory. Pass a folder" in load_error(
        tmp_path / "no"
    )
    (tmp_path / "file").touch()
    assert "Not a directory" in load_error(tmp_path / "file")
    assert "it has no SHA256SUMS" in load_error(tmp_path)


Config = Callable[..., str]


@pytest.fixture
def config(bert_folder: Path) -> Config:
    """Change a Transformers model's configuration, and return the error of loading it."""

    def changed(**changes: object) -> str:
        edit_json(bert_folder, "config.json", **changes)
        with pytest.raises(cpuaccel.ArtifactError) as raised:
            cpuaccel.load(bert_folder)
        return str(raised.value)

    return changed


@needs_torch_2
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"hidden_size": 10**9}, "hidden_size in the configuration must be at most 1000000"),
        ({"hidden_size": 10**5}, "describes a different model: its weights have .* of shape"),
        ({"num_hidden_layers": 10**6}, "describes a model with far more weights"),
        ({"num_hidden_layers": -1}, "describes a different model: its weights have"),
        ({"num_hidden_layers": "os"}, "Transformers raised"),
        ({"hidden_act": "builtins.eval"}, "Transformers raised"),
        ({"vocab_size": None}, "Transformers raised"),
        ({"id2label": [[[]]]}, "Transformers raised"),
    ],
    ids=str,
)
def test_a_configuration_that_does_not_fit_the_weights(
    changes: dict[str, object], expected: str, config: Config
) -> None:
    message = config(**changes)
    assert "BertForQuestionAnswering can't be made: " in message
    assert re.search(expected, message), message


@needs_torch_2
def test_settings_that_name_code_are_ignored(bert_folder: Path) -> None:
    """Attention kernels and classes in repositories, weights to download."""
    edit_json(
        bert_folder,
        "config.json",
        auto_map={"AutoModel": "evil/repo--modeling.Evil"},
        attn_implementation="evil/kernels",
        _attn_implementation="evil/kernels",
        _attn_implementation_internal="evil/kernels",
        experts_implementation="evil/kernels",
        quantization_config={"quant_method": "evil"},
        name_or_path="evil/repo",
    )
    loaded = cpuaccel.load(bert_folder)
    assert loaded.config._attn_implementation == "sdpa"
    assert not hasattr(loaded.config, "auto_map")


@needs_torch_2
@pytest.mark.parametrize("name", ["Trainer", "os", "BertTokenizer", "GPT2Model", "__class__", ""])
def test_only_registered_classes_are_made(name: str, bert_folder: Path) -> None:
    edit_json(bert_folder, "artifact.json", model__name=name)
    with pytest.raises(cpuaccel.ArtifactError, match=f"has no class '{name}' for 'bert'"):
        cpuaccel.load(bert_folder)


@needs_torch_2
@pytest.mark.parametrize("text", ["", "[]", "{" * 100_000, '{"a":' * 100_000 + "1" + "}" * 100_000])
def test_an_invalid_configuration(text: str, bert_folder: Path) -> None:
    (bert_folder / "config.json").write_text(text)
    sign(bert_folder)
    with pytest.raises(cpuaccel.ArtifactError, match="config"):
        cpuaccel.load(bert_folder)


def test_unlisted_files_are_ignored(saved_encoder: SavedFiles, tmp_path: Path) -> None:
    folder = saved_encoder.write(tmp_path / "a")
    (folder / "README.md").write_text("mine")
    (folder / "config.json").write_text("{")
    cpuaccel.load(folder, encoder())
