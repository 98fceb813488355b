"""Artifacts that are broken or hostile: each a clear error, before anything is believed."""

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


def refused(folder: Path) -> str:
    with pytest.raises(cpuaccel.ArtifactError) as raised:
        cpuaccel.load(folder, encoder())
    message = str(raised.value)
    assert message.startswith(f"loading {folder} was asked for")
    assert len(message) < 1500
    return message


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_was_cut_short_or_changed(name: str, encoder_folder: Path) -> None:
    path = encoder_folder / name
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    assert name in refused(encoder_folder)
    path.write_bytes(data[:40] + bytes([data[40] ^ 1]) + data[41:])
    assert name in refused(encoder_folder) or name == SUMS


def test_what_a_changed_file_is_told_as(encoder_folder: Path) -> None:
    (encoder_folder / "model.pt").write_bytes(b"changed")
    assert refused(encoder_folder).endswith(
        "but model.pt in it is not what was saved: its SHA-256 differs from SHA256SUMS's. Save it "
        "anew, or fetch it again from where it came"
    )


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_missing(name: str, encoder_folder: Path) -> None:
    (encoder_folder / name).unlink()
    expected = "no SHA256SUMS in it, so it is no artifact" if name == SUMS else f"{name} in it is"
    assert expected in refused(encoder_folder)


@pytest.mark.parametrize("kind", ["link", "link to a folder", "pipe", "folder"])
@pytest.mark.parametrize("name", [SUMS, "weights.safetensors", "model.pt"])
def test_what_is_no_regular_file_is_not_read(
    kind: str, name: str, encoder_folder: Path, tmp_path: Path
) -> None:
    path = encoder_folder / name
    aside = tmp_path / "aside"
    path.rename(aside)
    if kind == "link":
        path.symlink_to(aside)  # with just the right contents
    elif kind == "link to a folder":
        path.symlink_to(tmp_path)
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    assert f"{name} in it" in refused(encoder_folder)


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
def test_names_mean_files_in_the_folder_and_nothing_else(line: str, encoder_folder: Path) -> None:
    with (encoder_folder / SUMS).open("a") as file:
        file.write(f"{'0' * 64}  {line}\n")
    assert "names" in (message := refused(encoder_folder)) or "each named once" in message


@pytest.mark.parametrize("text", ["", "\n", "0" * 64, "g" * 64 + "  artifact.json", "\xff\xfe"])
def test_a_list_of_hashes_that_is_none(text: str, encoder_folder: Path) -> None:
    (encoder_folder / SUMS).write_text(text, encoding="latin-1")
    assert SUMS in refused(encoder_folder)


def test_a_newer_format_is_told_before_anything_else(encoder_folder: Path) -> None:
    (encoder_folder / "artifact.json").write_text(
        json.dumps({"format": "cpuaccel artifact", "version": 2, "all": "new"})
    )
    sign(encoder_folder)
    assert refused(encoder_folder).endswith(
        f"which is written in format 2; cpuaccel {cpuaccel.__version__} reads format 1. Upgrade "
        "cpuaccel, or save it anew with this version"
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
def test_text_that_is_no_record(name: str, text: str, encoder_folder: Path) -> None:
    (encoder_folder / name).write_bytes(text.encode("utf-8", "surrogatepass"))
    sign(encoder_folder)
    assert name in refused(encoder_folder)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"extra": 1}, "malformed at extra"),
        ({"calls": []}, "malformed at calls"),
        ({"calls__0__constants": {"a": [1]}}, "malformed at calls.0.constants"),
        ({"calls__0__constants": {"a": {"dtype": "load"}}}, "malformed at calls.0.constants"),
        ({"calls__0__tensors": ["input_ids", "other"]}, "lacks the tensor '0/inputs/other'"),
        ({"calls__0__tensors": []}, "forward requires 'input_ids'"),
        ({"calls__0__answers": ["states"]}, "does not answer as what was saved"),
        ({"calls__0__answers__0": "other"}, "does not answer as what was saved"),
        ({"settings__tolerance": -1}, "malformed at settings.tolerance"),
        ({"settings__tolerance": float("nan")}, "malformed at settings.tolerance"),
        ({"settings__strict": "os.system('true')"}, "malformed at settings.strict"),
        ({"tied": {"norm.weight": "nothing"}}, "lack what norm.weight shares"),
        ({"model__model_type": 3}, "malformed at model.model_type"),
        ({"model__attention": "someone/kernels"}, "malformed at model.attention"),
    ],
    ids=str,
)
def test_fields_that_are_wrong(
    changes: dict[str, object], expected: str, encoder_folder: Path
) -> None:
    edit_json(encoder_folder, "artifact.json", **changes)
    assert expected in refused(encoder_folder)


def header(text: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(text) if length is None else length) + text + b"1234"


def lie(dtype: str, shape: list[int], end: int) -> bytes:
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
        lie("F32", [10**12], 4 * 10**12),
        lie("F32", [2**32, 2**32], 4),
        lie("F99", [1], 4),
    ],
    ids=range(9),
)
@pytest.mark.parametrize("name", ["weights.safetensors", "examples.safetensors"])
def test_headers_that_lie(name: str, data: bytes, encoder_folder: Path) -> None:
    (encoder_folder / name).write_bytes(data)
    sign(encoder_folder)
    message = refused(encoder_folder)
    assert name in message or "the weights of the MaskedEncoder that was saved lack" in message


def test_more_than_there_is_memory_for_is_not_read(encoder_folder: Path) -> None:
    path = encoder_folder / "weights.safetensors"
    os.truncate(path, 2**43)  # takes no place on the disk
    assert f"weights.safetensors in it has {2**43} bytes, and at most" in refused(encoder_folder)
    path = encoder_folder / "artifact.json"
    os.truncate(path, contents.MAX_TEXT + 1)
    assert "are read of such a file" in refused(encoder_folder)


def test_weights_that_were_changed_on_purpose_are_seen_by_the_answers(
    encoder_folder: Path,
) -> None:
    path = encoder_folder / "weights.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[:-64] + b"\0\0\x80\x3f" * 16)
    sign(encoder_folder)
    assert "the model does not answer as what was saved" in refused(encoder_folder)


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    assert "can't be opened: No such file or directory. Pass the folder" in refused(tmp_path / "no")
    (tmp_path / "file").touch()
    assert "Not a directory" in refused(tmp_path / "file")
    assert "no SHA256SUMS in it" in refused(tmp_path)


Config = Callable[..., str]


@pytest.fixture
def config(bert_folder: Path) -> Config:
    """Change a Transformers model's configuration, and say how it is refused."""

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
        ({"hidden_size": 10**9}, "a hidden_size of more than 1000000"),
        ({"hidden_size": 10**5}, "comes another model: its weights have .* of shape"),
        ({"num_hidden_layers": 10**6}, "comes a model with far more weights"),
        ({"num_hidden_layers": -1}, "comes another model: its weights have"),
        ({"num_hidden_layers": "os"}, "making it raised"),
        ({"hidden_act": "builtins.eval"}, "making it raised"),
        ({"vocab_size": None}, "making it raised"),
        ({"id2label": [[[]]]}, "making it raised"),
    ],
    ids=str,
)
def test_a_configuration_cannot_ask_for_more_than_its_weights(
    changes: dict[str, object], expected: str, config: Config
) -> None:
    message = config(**changes)
    assert "without a model, but its BertForQuestionAnswering can't be made here" in message
    assert re.search(expected, message), message


@needs_torch_2
def test_settings_that_name_code_are_not_followed(bert_folder: Path) -> None:
    """Attention by the name of a repository, classes by the names of files, weights to fetch."""
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
def test_only_the_architectures_own_classes_are_made(name: str, bert_folder: Path) -> None:
    edit_json(bert_folder, "artifact.json", model__name=name)
    with pytest.raises(cpuaccel.ArtifactError, match=f"registers no class '{name}' for 'bert'"):
        cpuaccel.load(bert_folder)


@needs_torch_2
@pytest.mark.parametrize("text", ["", "[]", "{" * 100_000, '{"a":' * 100_000 + "1" + "}" * 100_000])
def test_a_configuration_that_is_none(text: str, bert_folder: Path) -> None:
    (bert_folder / "config.json").write_text(text)
    sign(bert_folder)
    with pytest.raises(cpuaccel.ArtifactError, match="config"):
        cpuaccel.load(bert_folder)


def test_files_that_are_not_listed_are_not_read(saved_encoder: SavedFiles, tmp_path: Path) -> None:
    folder = saved_encoder.write(tmp_path / "a")
    (folder / "README.md").write_text("of someone's own")
    (folder / "config.json").write_text("{")
    cpuaccel.load(folder, encoder())
