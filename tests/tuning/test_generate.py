"""Searches for the fastest pipeline for ``generate``."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import cpuaccel
from cpuaccel.cli.models.cases import make_prompt_cases
from cpuaccel.cli.models.load import load_model
from cpuaccel.tuning.decisions.result import CandidateStatus
from tests.required import requires
from tests.tuning.conftest import Install
from tests.tuning.results import rows, tuning

pytestmark = requires("torch>=2.6", "transformers>=5")

NEW = {"max_new_tokens": 5}
LONG = {"budget": 500, "time_limit": 500}


@pytest.fixture
def llama() -> Any:
    return load_model("config:llama-tiny")


@pytest.fixture
def prompts() -> dict[str, torch.Tensor]:
    mask = torch.ones(2, 8, dtype=torch.long)
    mask[1, :3] = 0
    return {"input_ids": torch.randint(5, 500, (2, 8)), "attention_mask": mask}


def test_measures_generate_and_keeps_the_decision(
    install: Install,
    llama: Any,
    prompts: dict[str, torch.Tensor],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    install("onednn", "jit")
    lock = tmp_path / "cpuaccel.lock"
    fast = cpuaccel.optimize(llama, "auto", example_inputs=prompts, generate=NEW, lock=lock, **LONG)
    row = rows(fast)["onednn"]
    assert row.speedup is not None
    assert max(difference.relative for difference in row.differences) <= 1e-4
    assert any("fused_layers" in one or "fused layers" in one for one in row.evidence)
    (jit,) = (one for one in tuning(fast).not_tried if one.name == "jit")
    assert jit.reason == "it does not generate"
    expected = llama.generate(**prompts, **NEW, do_sample=False)
    assert torch.equal(fast.generate(**prompts, **NEW, do_sample=False), expected)  # type: ignore[operator]

    again = cpuaccel.optimize(
        llama, "auto", example_inputs=prompts, generate=NEW, lock=lock, strict=True, **LONG
    )
    assert tuning(again).winner == tuning(fast).winner
    for other in ({"max_new_tokens": 6}, None):
        with pytest.raises(cpuaccel.LockError, match="does not fit"):
            cpuaccel.optimize(
                llama,
                "auto",
                example_inputs=prompts,
                lock=lock,
                strict=True,
                **({"generate": other} if other else {}),
                **LONG,
            )


def test_8_bits_need_a_tolerance_or_a_metric(
    install: Install, llama: Any, prompts: dict[str, torch.Tensor]
) -> None:
    install("int8")
    fast = cpuaccel.optimize(llama, "auto", example_inputs=prompts, generate=NEW, **LONG)
    (not_tried,) = tuning(fast).not_tried
    assert "wider tolerance" in not_tried.reason
    lengths: list[object] = []

    def metric(outputs: list[object]) -> float:
        lengths.extend(output.shape for output in outputs if isinstance(output, torch.Tensor))
        return 1.0

    measured = cpuaccel.optimize(
        llama, "auto", example_inputs=prompts, generate=NEW, metric=metric, **LONG
    )
    assert rows(measured)["int8"].speedup is not None
    assert set(lengths) == {(2, 13)}


def test_models_that_no_stepper_serves_keep_the_original(
    install: Install, caplog: pytest.LogCaptureFixture
) -> None:
    install("onednn")
    sizes = {"n_positions": 32, "n_embd": 32, "n_layer": 1, "n_head": 2, "vocab_size": 64}
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes)).eval()
    ids = torch.ones(1, 4, dtype=torch.long)
    with caplog.at_level(logging.WARNING):
        fast = cpuaccel.optimize(
            model, "auto", example_inputs={"input_ids": ids}, generate=NEW, **LONG
        )
    row = rows(fast)["onednn"]
    assert row.status is CandidateStatus.REFUSED
    assert "has 32 positions" in row.reason
    assert tuning(fast).winner.name == "eager"


def test_speech_with_a_metric(install: Install) -> None:
    """Of the texts, as a word error rate would be computed of recordings with transcripts."""
    install("int8")
    model: Any = load_model("config:whisper-tiny", generates=True)
    (case,) = make_prompt_cases(model, [2], [], 0.0)
    call = {"max_new_tokens": 5, "num_beams": 2}
    (expected,) = (model.generate(**batch, **call, min_new_tokens=5) for batch in case.batches)

    def right_tokens(outputs: list[object]) -> float:
        (found,) = outputs
        assert isinstance(found, torch.Tensor)
        return float((found == expected).float().mean())

    fast = cpuaccel.optimize(
        model,
        "auto",
        example_inputs=case.batches,
        generate=call,
        metric=right_tokens,
        max_drop=1.0,
        **LONG,
    )
    row = rows(fast)["int8"]
    # Whether it is chosen depends on the machine.
    assert row.speedup is not None, row.reason
    assert row.metric is not None
    assert 0 <= row.metric <= 1
    assert tuning(fast).metric == 1


@pytest.mark.parametrize(
    ("generate", "message"),
    [
        ({}, "must be a mapping with max_new_tokens"),
        (64, "must be a mapping with max_new_tokens"),
        ({"max_new_tokens": 4, "streamer": object()}, "must have plain values"),
    ],
)
def test_invalid_arguments(
    llama: Any, prompts: dict[str, torch.Tensor], generate: Any, message: str
) -> None:
    with pytest.raises(cpuaccel.CpuaccelError, match=message):
        cpuaccel.optimize(llama, "auto", example_inputs=prompts, generate=generate)


def test_models_without_generate() -> None:
    with pytest.raises(cpuaccel.CpuaccelError, match="needs a model with generate, got a Linear"):
        cpuaccel.optimize(
            torch.nn.Linear(2, 2), "auto", example_inputs=torch.ones(1, 2), generate=NEW
        )
