"""All engines one after the other in one process: none leaves a trace on torch or on another."""

import contextlib
import importlib
import logging
import sys

import torch

import cpuaccel
from cpuaccel.testing.outputs import assert_same_output
from cpuaccel.testing.state import changed, global_state
from cpuaccel.testing.subject import TOLERANCE
from tests.models import batch, encoder, right
from tests.plugins.engines import verdict_on

ENGINES = (
    "jit",
    "onednn",
    "int8",
    "openvino",
    "openvino_int8",
    "onnxruntime",
    "zentorch",
    "inductor",
)
OPTIONS = {"int8": {"measure": False}}  # on so small a model it is not faster
TOLERANT = 0.4
"""For random weights in 8 bits; the others are held to less below."""
COMPILER = ("torch._dynamo.config", "torch._inductor.config")


def settings() -> dict[str, object]:
    found = {
        **global_state(),
        "logging": (logging.root.handlers[:], logging.root.level),
        "loggers": {name: logging.getLogger(name).level for name in ("torch", "torch.onnx")},
    }
    for name in COMPILER:
        copied = getattr(sys.modules.get(name), "get_config_copy", dict)  # from torch 2.3 on
        found[name] = copied()
    return found


def test_engines_in_turn_leave_torch_and_each_other_alone() -> None:
    for name in COMPILER:  # what an engine imports first has no before
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    model, inputs = encoder("bert-token"), batch("bert-token", 2, 12, right)
    engines = [name for name in ENGINES if verdict_on(name)]
    assert engines

    def eager() -> torch.Tensor:
        with torch.no_grad():
            answer: torch.Tensor = model(**inputs).logits
        return answer

    expected, before = eager(), settings()
    built: dict[str, cpuaccel.OptimizedModel] = {}
    answers: dict[str, torch.Tensor] = {}
    for engine in engines:
        built[engine] = cpuaccel.optimize(
            model,
            [cpuaccel.Step(engine, **OPTIONS.get(engine, {}))],
            example_inputs=inputs,
            strict=True,
            tolerance=TOLERANT,
        )
        answers[engine] = built[engine](**inputs).logits
        assert changed(before, settings()) == [], engine
        assert torch.equal(eager(), expected), engine
    for engine, fast in reversed(built.items()):
        answer = fast(**inputs).logits
        coarse = cpuaccel.backends()[engine].tolerance > 0
        tolerance = TOLERANT if coarse else TOLERANCE["float32"]
        assert_same_output(answer, expected, inputs, tolerance)
        assert torch.equal(answer, answers[engine]), engine
        assert set(fast.report.calls) == {"optimized"}, fast.report
    assert changed(before, settings()) == []
    assert torch.equal(eager(), expected)
