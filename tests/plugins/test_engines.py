"""All engines one after the other in one process: none leaves a trace on torch or on another."""

import contextlib
import importlib
import logging
import sys

import torch

import cpuaccel
from cpuaccel.testing.state import changed, global_state
from tests.plugins.encoders import batch, encoder, right
from tests.plugins.engines import verdict_on

ENGINES = ("jit", "onednn", "openvino", "onnxruntime", "zentorch", "inductor")
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
        built[engine] = cpuaccel.optimize(model, [engine], example_inputs=inputs, strict=True)
        answers[engine] = built[engine](**inputs).logits
        assert changed(before, settings()) == [], engine
        assert torch.equal(eager(), expected), engine
    for engine, fast in reversed(built.items()):
        answer = fast(**inputs).logits
        torch.testing.assert_close(answer, expected)
        assert torch.equal(answer, answers[engine]), engine
        assert set(fast.report.calls) == {"optimized"}, fast.report
    assert changed(before, settings()) == []
    assert torch.equal(eager(), expected)
