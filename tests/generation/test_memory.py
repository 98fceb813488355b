"""Weights that a stepper has in 8 bits are not held twice, and the original is exact."""

import copy
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

import cpuaccel
from cpuaccel.generation.weights.mapped_memory import mapped
from tests.generation.models import decoder, left_padded, prompt, tokens_of
from tests.required import requires

LINUX = "linux: 4.4"


@pytest.fixture(autouse=True)
def _files_of_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the kernels stay where they are compiled, and write weights to another folder."""
    monkeypatch.setattr(
        "cpuaccel.generation.weights.unloaded_weights.cache_folder", lambda kind: tmp_path / kind
    )


def quantized(model: Any, **settings: Any) -> Any:
    fast: Any = cpuaccel.optimize(
        model, ["int8"], **{"keep_original": False, "strict": True, **settings}
    )
    fast.prepare_generation()
    return fast


def unloaded(fast: Any) -> int:
    return int(fast.report.generation.outcome.evidence.get("unloaded_weights", 0))


def of_files(model: Any) -> set[str]:
    return {name for name, weight in model.named_parameters() if mapped([weight])}


def state(model: Any) -> dict[str, torch.Tensor]:
    return {name: weight.clone() for name, weight in model.state_dict().items()}


def assert_exact(model: Any, expected: dict[str, torch.Tensor]) -> None:
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, expected[name]), name


def save(model: Any, folder: Path) -> Any:
    """Save a model, and load it: its weights are mapped."""
    import transformers

    model.save_pretrained(folder)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    assert "model.layers.0.mlp.up_proj.weight" in of_files(loaded)
    return loaded


@requires(LINUX)
@pytest.mark.parametrize("name", ["llama", "gpt2", "mixtral"])
def test_the_original_of_a_folder_stays_exact(tmp_path: Path, name: str) -> None:
    """Its weights are read again from the checkpoint; embeddings and norms stay in memory."""
    import transformers

    source = decoder(name)
    source.save_pretrained(tmp_path)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    before = {name: weight.data_ptr() for name, weight in model.named_parameters()}
    fast = quantized(model)
    assert unloaded(fast) > 2
    assert_exact(model, source.state_dict())
    if name == "llama":
        assert {name: weight.data_ptr() for name, weight in model.named_parameters()} == before
    assert torch.equal(tokens_of(model, left_padded()), tokens_of(source, left_padded()))
    fast.generate(**left_padded(), max_new_tokens=3)
    assert fast.report.calls == {"optimized": 1}


@pytest.mark.parametrize("name", ["llama", "qwen2", "gemma3", "gpt2", "mixtral"])
def test_weights_in_memory_are_moved_to_files(name: str, tmp_path: Path) -> None:
    model, expected = decoder(name), decoder(name)
    assert not of_files(model)
    fast = quantized(model)
    moved = of_files(model)
    assert unloaded(fast) >= len(moved) > 2
    assert not {one for one in moved if "norm" in one or "bias" in one}
    assert list((tmp_path / "weights").iterdir()) == []  # the files have no names
    assert_exact(model, expected.state_dict())
    assert torch.equal(tokens_of(model, left_padded()), tokens_of(expected, left_padded()))
    built = fast.report.generation
    fast.generate(**left_padded(), max_new_tokens=3)
    assert fast.report.generation is built
    assert fast.report.calls == {"optimized": 1}


def test_with_the_original_kept_nothing_is_moved() -> None:
    model = decoder("llama")
    before = {name: weight.data_ptr() for name, weight in model.named_parameters()}
    fast = quantized(model, keep_original=True)
    assert unloaded(fast) == 0
    assert {name: weight.data_ptr() for name, weight in model.named_parameters()} == before


def test_weights_that_kernels_read_where_they_are_stay() -> None:
    model = decoder("llama")
    fast: Any = cpuaccel.optimize(model, ["onednn"], keep_original=False, strict=True)
    fast.prepare_generation()
    assert unloaded(fast) == 0
    assert not of_files(model)


def test_weights_that_are_left_in_float_stay() -> None:
    model = decoder("llama")
    step = cpuaccel.Step("int8", float_names=["lm_head"])
    fast: Any = cpuaccel.optimize(model, [step], keep_original=False, strict=True)
    fast.prepare_generation()
    assert "lm_head.weight" not in of_files(model)
    assert "model.layers.0.mlp.up_proj.weight" in of_files(model)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_stay_in_float(value: float) -> None:
    model = decoder("llama")
    odd = model.model.layers[0].mlp.up_proj
    with torch.no_grad():
        odd.weight[64, 7] = value
        backend = cpuaccel.backends()["int8"]
        unloaded: list[torch.Tensor] = []
        made = backend(backend.Options()).stepper(
            model, cpuaccel.host(), lambda weight: bool(unloaded.append(weight))
        )
    left = set(map(id, unloaded))
    assert len(left) == 7 * 2
    assert id(odd.weight) not in left
    assert made.evidence["linears"] == 7 * 2 + 1


@requires(LINUX)
def test_a_changed_weight_of_a_folder_is_not_dropped(tmp_path: Path) -> None:
    """The checkpoint's file doesn't have the change, whether torch counted it or not."""
    model = save(decoder("llama"), tmp_path / "model")
    with torch.no_grad():  # in the middle: pages at its ends are shared with other weights
        model.model.layers[0].mlp.up_proj.weight[64, 7] += 1
    model.model.layers[1].mlp.up_proj.weight.data.numpy()[70, 2] = 0.5
    expected = state(model)
    fast = quantized(model)
    assert unloaded(fast) == 7 * 2 + 1
    assert_exact(model, expected)


def test_threads_build_and_generate_side_by_side() -> None:
    model, expected = decoder("llama"), decoder("llama")
    fast: Any = cpuaccel.optimize(model, ["int8"], keep_original=False, strict=True)
    inputs = [prompt(5 + index, 1 + index % 3, seed=index) for index in range(8)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda each: tokens_of(fast, each), inputs))
    assert all(map(torch.equal, found, [tokens_of(fast, each) for each in inputs]))
    assert fast.report.calls == {"optimized": 2 * len(inputs)}
    assert_exact(model, expected.state_dict())


NEEDS: dict[str, Callable[[Any], object]] = {
    "original": lambda fast: fast.original,
    "state_dict": lambda fast: fast.state_dict(),
    "to": lambda fast: fast.to("cpu"),
    "train": lambda fast: fast.train().eval(),
    "copy": lambda fast: copy.deepcopy(fast),
    "a call": lambda fast: fast(**prompt()),
}


@pytest.mark.parametrize("need", NEEDS)
def test_what_needs_the_original_finds_it_exact(need: str) -> None:
    model, expected = decoder("llama"), decoder("llama")
    fast = quantized(model, strict=False)
    NEEDS[need](fast)
    assert_exact(model, expected.state_dict())
    with torch.no_grad():
        assert torch.equal(model(**prompt()).logits, expected(**prompt()).logits)


def test_the_original_takes_over() -> None:
    model, expected = decoder("llama"), decoder("llama")
    fast = quantized(model, strict=False)
    call = {"output_attentions": True, "return_dict_in_generate": True, "max_new_tokens": 4}
    for each in (model, expected):
        each.set_attn_implementation("eager")
    found, wanted = (each.generate(**prompt(), **call) for each in (fast, expected))
    assert torch.equal(found.sequences, wanted.sequences)
    assert torch.equal(found.attentions[-1][0], wanted.attentions[-1][0])
    assert "output_attentions" in fast.report.fallbacks["fallback:method"]


def test_changed_weights_are_quantized_and_unloaded_again() -> None:
    model = decoder("llama")
    fast = quantized(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    expected = state(model)
    call = {"max_new_tokens": 1, "return_dict_in_generate": True, "output_logits": True}
    found, wanted = (m.generate(**prompt(), **call).logits[0] for m in (fast, model))
    assert (found - wanted).abs().max() < 0.05 * wanted.abs().max()
    assert unloaded(fast) == 7 * 2 + 1
    assert_exact(model, expected)
    assert fast.report.calls == {"optimized": 1}


@pytest.mark.parametrize("tied", [False, True])
def test_a_weight_with_two_names(tied: bool) -> None:
    """One that shares memory with another parameter is left alone; a tied one is moved."""
    model = decoder("llama", tie_word_embeddings=tied)
    if not tied:
        model.model.embed_tokens.weight = torch.nn.Parameter(model.lm_head.weight.data)
    expected = state(model)
    fast = quantized(model)
    assert ("model.embed_tokens.weight" in of_files(model)) is tied
    assert_exact(model, expected)
    with torch.no_grad():
        model.model.embed_tokens.weight.mul_(2)
    assert torch.equal(model.lm_head.weight, 2 * expected["lm_head.weight"])
    call = {"max_new_tokens": 1, "return_dict_in_generate": True, "output_logits": True}
    found, wanted = (m.generate(**prompt(), **call).logits[0] for m in (fast, model))
    assert (found - wanted).abs().max() < 0.05 * wanted.abs().max()


def test_a_weight_that_no_file_can_hold_stays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "weights").write_text("not a folder")
    model, expected = decoder("llama"), decoder("llama")
    with caplog.at_level(logging.WARNING):
        fast = quantized(model)
    assert unloaded(fast) == 0
    assert not of_files(model)
    assert_exact(model, expected.state_dict())
    messages = [record.getMessage() for record in caplog.records]
    assert sum("can't be written to a file" in message for message in messages) == 1


@pytest.mark.usefixtures("any_bf16")
def test_a_cast_copy_is_unloaded() -> None:
    model, expected = decoder("llama"), decoder("llama")
    fast = quantized(model, dtype="bfloat16")
    assert unloaded(fast) == 7 * 2 + 1
    assert not of_files(model)
    assert_exact(model, expected.state_dict())
    fast.generate(**prompt(), max_new_tokens=3)
    assert fast.report.calls == {"optimized": 1}


def test_calls_and_generate_release_in_turn() -> None:
    """What ``forward`` released is restored for ``generate``, and moved by it."""
    model, expected = decoder("llama"), decoder("llama")
    inputs = {**prompt(), "use_cache": False}
    steps = [cpuaccel.Step("int8", measure=False)]
    fast: Any = cpuaccel.optimize(model, steps, example_inputs=inputs, keep_original=False)
    for _ in range(2):
        fast.generate(**prompt(), max_new_tokens=3)
        with torch.no_grad():
            found, wanted = fast(**inputs).logits, expected(**inputs).logits
        assert (found - wanted).abs().max() < 0.15 * wanted.abs().max()
    assert_exact(fast.original, expected.state_dict())
