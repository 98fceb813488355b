"""What the report shows of ``generate``, and what the meter counts."""

import json
from typing import Any

import pytest
import torch

import cpuaccel
from cpuaccel.generation.meter import Meter
from cpuaccel.report import Status
from tests.generation.models import decoder, prompt


def generated(backend: str = "onednn", **call: Any) -> Any:
    fast: Any = cpuaccel.optimize(decoder("llama"), [backend])
    fast.generate(**prompt(9, 2), **{"max_new_tokens": 5, "do_sample": False, **call})
    return fast


def test_lines() -> None:
    fast = generated()
    lines = {line[:10].strip(): line[10:] for line in str(fast.report).splitlines()}
    assert lines["generate"].startswith("onednn: applied in ")
    assert "fused layers 2" in lines["generate"]
    assert "tolerance 0.0001" in lines["fidelity"]
    assert "1 prefills of 18 tokens" in lines["generated"]
    assert "4 steps of 8 tokens" in lines["generated"]
    assert lines["calls"] == "1 optimized"


def test_lines_before_generate() -> None:
    fast = cpuaccel.optimize(decoder("llama"), ["onednn"])
    assert fast.report.generation is None
    assert "generate" not in str(fast.report)
    assert fast.report.to_dict()["generation"] is None


def test_lines_of_a_divergence() -> None:
    fast = generated("int8")
    assert "divergence" in str(fast.report)
    assert 0 < fast.report.generation.closeness.divergence < 0.01
    assert fast.report.generation.closeness.tolerance == 0


def test_lines_of_a_model_that_is_not_served() -> None:
    fast: Any = cpuaccel.optimize(decoder("llama").to(torch.float16), ["onednn"])
    fast.generate(**prompt(), max_new_tokens=2)
    outcome = fast.report.generation.outcome
    assert outcome.status is Status.SKIPPED
    assert f"generate  {outcome}" in str(fast.report)
    assert json.loads(json.dumps(fast.report.to_dict()))["generation"]["fidelity"] is None
    assert outcome.reason in str(fast.report)
    assert "generated" not in str(fast.report)


@pytest.mark.parametrize("backend", ["onednn", "int8"])
def test_it_is_serializable(backend: str) -> None:
    fast = generated(backend)
    read = json.loads(json.dumps(fast.report.to_dict()))
    assert read["generation"]["outcome"]["step"] == backend
    assert read["generation"]["steps"] == 4
    assert read["calls"] == {"optimized": 1}


def test_closeness() -> None:
    closeness = generated().report.generation.closeness
    probes = {difference.probe for difference in closeness.differences}
    assert {"a prompt", "single steps", "a chunk", "a cropped cache"} <= probes
    assert {"a padded batch", "steps of reordered rows"} <= probes
    assert all(0 <= d.relative <= 1e-4 for d in closeness.differences)
    assert closeness.same_best > 0.9


def test_counts() -> None:
    fast = generated()
    meter = fast.report.generation.meter
    assert (meter.prefills, meter.prefill_tokens) == (1, 18)
    assert (meter.steps, meter.step_tokens) == (4, 8)
    fast.generate(**prompt(3), max_new_tokens=3)
    assert (meter.prefills, meter.prefill_tokens) == (2, 21)
    assert (meter.steps, meter.step_tokens) == (6, 10)
    assert meter.generate_seconds > 0


def test_counts_of_assisted_decoding() -> None:
    """Checked candidates are prefills of several tokens; nothing is counted for the assistant."""
    fast = generated(max_new_tokens=1)
    meter = fast.report.generation.meter
    before = meter.prefills
    inputs = {key: tensor.repeat(1, 4) for key, tensor in prompt(4).items()}
    fast.generate(**inputs, max_new_tokens=12, prompt_lookup_num_tokens=3)
    assert meter.prefills > before + 1


def test_calls_that_the_original_serves_are_not_counted() -> None:
    fast = generated(use_cache=False)
    assert fast.report.generation.meter.steps == 0
    assert fast.report.generation.meter.prefills == 0


def test_bytes_that_a_step_reads() -> None:
    """All weights of linears, and the keys and values so far, in float32."""
    fast = generated()
    meter = fast.report.generation.meter
    linears = [m for m in fast.original.modules() if isinstance(m, torch.nn.Linear)]
    assert meter.bytes_per_step == sum(4 * m.weight.numel() for m in linears)
    kept = sum(2 * 2 * 2 * length * 2 * 16 * 4 for length in range(10, 14))
    assert meter.cache_bytes == kept
    assert meter.bytes_per_token == (4 * meter.bytes_per_step + kept) / 8


def test_a_meter_without_calls() -> None:
    meter = Meter()
    assert str(meter) == ""
    assert (meter.tokens_per_second, meter.bytes_per_token, meter.share_of_bandwidth) == (0, 0, 0)


def test_rates() -> None:
    meter = Meter(bytes_per_step=1000, bandwidth=10_000)
    meter.record(2, 5, 0.5, 0)
    for _ in range(2):
        meter.record(2, 1, 0.25, 200)
    assert meter.tokens_per_second == 8
    assert meter.bytes_per_token == (2000 + 400) / 4
    assert meter.share_of_bandwidth == 8 * 600 / 10_000
