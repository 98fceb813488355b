"""What can't be loaded or tokenized gives an error with a remedy."""

import json
from pathlib import Path

import pytest
import transformers

from cpuaccel.cli.models.load import load_model
from tests.cli.conftest import Run
from tests.cli.generate.models import (
    CHAT,
    ORIGINAL,
    PROMPT,
    SHORT,
    expected,
    make_llama,
    make_tokenizer,
)
from tests.required import requires

pytestmark = requires("transformers>=4.48")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("/nonexistent", "there is no folder /nonexistent. Pass a folder"),
        ("./nonexistent", "there is no folder ./nonexistent"),
        ("/dev/null", "/dev/null is a file, not a folder"),
        ("config:bert-tiny", "config:bert-tiny has no tokenizer. Pass a folder"),
    ],
)
def test_models_that_are_not_there(run: Run, model: str, message: str) -> None:
    ran = run("generate", model, PROMPT)
    assert ran.code == 1
    assert ran.out == ""
    assert message in ran.err


def test_a_hub_id_without_a_network(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    ran = run("generate", "nobody/nothing", PROMPT)
    assert ran.code == 1
    assert "nobody/nothing can't be loaded" in ran.err


def test_a_folder_without_a_config(run: Run, tmp_path: Path) -> None:
    ran = run("generate", tmp_path, PROMPT)
    assert ran.code == 1
    assert "has no config.json. Pass a folder that save_pretrained wrote" in ran.err


def test_a_folder_without_a_tokenizer(run: Run, tmp_path: Path) -> None:
    make_llama().save_pretrained(tmp_path)
    ran = run("generate", tmp_path, PROMPT)
    assert ran.code == 1
    assert f"the folder {tmp_path} has no tokenizer. Save that of the model" in ran.err
    assert "AutoTokenizer.from_pretrained(NAME).save_pretrained(FOLDER)" in ran.err


def test_a_tokenizer_that_is_damaged(run: Run, tmp_path: Path) -> None:
    make_llama().save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    ran = run("generate", tmp_path, PROMPT)
    assert ran.code == 1
    assert f"the tokenizer of {tmp_path} can't be loaded: " in ran.err


def test_weights_that_are_damaged(run: Run, tmp_path: Path) -> None:
    make_llama().save_pretrained(tmp_path)
    make_tokenizer(CHAT).save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    ran = run("generate", tmp_path, PROMPT)
    assert ran.code == 1
    assert f"{tmp_path} can't be loaded: " in ran.err


def test_a_model_without_generate(run: Run, tmp_path: Path) -> None:
    load_model("config:vit-tiny").save_pretrained(tmp_path)  # type: ignore[operator]
    ran = run("generate", tmp_path, PROMPT)
    assert ran.code == 1
    assert f"{tmp_path} is a ViTForImageClassification, which has no generate. Pass a" in ran.err


def test_a_model_that_hears(run: Run, tmp_path: Path) -> None:
    config = transformers.WhisperConfig()
    config.architectures = ["WhisperForConditionalGeneration"]
    config.save_pretrained(tmp_path)
    ran = run("generate", tmp_path, PROMPT)
    assert ran.code == 1
    assert "is a WhisperForConditionalGeneration, whose input is not text" in ran.err


def test_a_config_that_names_no_class(run: Run, llama: Path, tmp_path: Path) -> None:
    for file in llama.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    text = json.loads((tmp_path / "config.json").read_text())
    text["architectures"] = ["MyLlama"]
    (tmp_path / "config.json").write_text(json.dumps(text))
    ran = run("generate", tmp_path, PROMPT, *SHORT, *ORIGINAL, "--no-chat")
    assert ran.out == expected(llama, PROMPT) + "\n"


def test_chat_without_a_template(run: Run, plain: Path) -> None:
    ran = run("generate", plain, PROMPT, "--chat")
    assert ran.code == 1
    assert f"the tokenizer of {plain} has no chat template. Leave out --chat" in ran.err


def test_a_chat_template_that_raises(run: Run, tmp_path: Path) -> None:
    make_llama().save_pretrained(tmp_path)
    make_tokenizer("{{ raise_exception('a system message is needed') }}").save_pretrained(tmp_path)
    ran = run("generate", tmp_path, PROMPT)
    assert ran.code == 1
    assert "a system message is needed. Pass --no-chat" in ran.err


def test_a_model_that_raises(run: Run, plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> object:
        raise IndexError("index out of range in self")

    monkeypatch.setattr(transformers.LlamaForCausalLM, "forward", broken)
    ran = run("generate", plain, PROMPT, *ORIGINAL)
    assert ran.code == 1
    assert "raised IndexError: index out of range in self after 0 tokens. Pass a sho" in ran.err
