"""Saving a model whose ``generate`` is served, and loading it again."""

from pathlib import Path
from typing import Any

import pytest
import torch

import cpuaccel
from tests.artifact.parts import edit_json, sign
from tests.generation.models import assert_served, decoder, left_padded, prompt


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A folder with a decoder that samples by default, and that was used for ``generate`` only."""
    model = decoder("llama")
    model.generation_config.update(do_sample=True, top_k=3, max_new_tokens=7)
    fast: Any = cpuaccel.optimize(model, ["onednn"])
    fast.prepare_generation()
    fast.save(tmp_path / "saved")
    return tmp_path / "saved"


def test_a_loaded_model_generates_as_the_saved_one(saved: Path) -> None:
    fast: Any = cpuaccel.load(saved)
    assert fast.report.generation.stepper is not None
    assert fast.report.variants == []
    model = decoder("llama")
    assert_served(fast, model, left_padded())
    config = fast.generation_config
    assert (config.do_sample, config.top_k, config.max_new_tokens) == (True, 3, 7)
    assert fast.generate(**prompt()).shape == (1, 11 + 7)


def test_calls_and_generate_are_both_kept(tmp_path: Path) -> None:
    model = decoder("qwen2")
    example = {**prompt(), "use_cache": False}
    fast: Any = cpuaccel.optimize(model, ["onednn"], example_inputs=example, strict=True)
    fast.prepare_generation()
    fast.save(tmp_path)
    loaded: Any = cpuaccel.load(tmp_path)
    assert len(loaded.report.variants) == 1
    assert_served(loaded, model, left_padded())
    with torch.no_grad():
        found, expected = loaded(**example).logits, model(**example).logits
    assert torch.allclose(found, expected, atol=1e-5)


def test_nothing_was_built(tmp_path: Path) -> None:
    fast = cpuaccel.optimize(decoder("llama"), ["onednn"])
    with pytest.raises(cpuaccel.ArtifactError, match="call the model or its generate once"):
        fast.save(tmp_path / "saved")


def test_strict_raises_where_generate_needs_the_original() -> None:
    fast = cpuaccel.optimize(decoder("llama").half(), ["onednn"], strict=True)
    with pytest.raises(cpuaccel.StepError, match="generate needs the original"):
        fast.prepare_generation()


def test_other_weights_do_not_reproduce_the_logits(saved: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(saved / "weights.safetensors")
    weights["model.norm.weight"] *= 1.5
    save_file(weights, saved / "weights.safetensors")
    sign(saved)
    with pytest.raises(cpuaccel.ArtifactError, match="does not reproduce the stored output"):
        cpuaccel.load(saved)


def test_settings_that_may_name_code_are_refused(saved: Path) -> None:
    edit_json(saved, "generation_config.json", _name=1)
    with pytest.raises(cpuaccel.ArtifactError, match="table of known names"):
        cpuaccel.load(saved)


def test_without_calls_and_prompt(saved: Path) -> None:
    edit_json(saved, "artifact.json", prompt=None)
    with pytest.raises(cpuaccel.ArtifactError, match="calls are empty"):
        cpuaccel.load(saved)


def test_inspect_shows_it(saved: Path) -> None:
    from cpuaccel.artifact.summary import summarize

    assert summarize(saved).calls == ("generate",)
