"""What holds for all engines: their verdicts, and that none changes torch or another engine."""

import contextlib
import importlib
import logging
import sys

import pytest
import torch

import cpuaccel
from cpuaccel.report import Status
from cpuaccel.testing import fake_host
from cpuaccel.testing.outputs import assert_same_output
from cpuaccel.testing.state import changed, global_state
from cpuaccel.testing.subject import TOLERANCE
from tests.models import batch, encoder, right
from tests.plugins.engines import FACTS, verdict_on
from tests.plugins.models import Untraceable
from tests.required import unmet

OPTIONS = {"int8": {"measure": False}}
"""With measure=True int8 refuses so small a model, because 8 bits are not faster."""

TOLERANT = 0.4
"""For 8 bits on random weights."""

COMPILER = ("torch._dynamo.config", "torch._inductor.config")


@pytest.mark.parametrize("engine", FACTS)
def test_check_agrees_with_the_facts_of_this_host(engine: str) -> None:
    verdict = verdict_on(engine, cpuaccel.host())
    assert bool(verdict) is not bool(unmet(FACTS[engine])), verdict


@pytest.mark.parametrize(
    ("engine", "packages", "reason"),
    [
        ("jit", {"torch": "1.12.1"}, "torch 1.12.1 is installed, >=1.13 is needed"),
        ("jit", {"torch": "1.13.0a0+gitunknown"}, ""),
        ("onednn", {"torch": "2.5.1"}, "torch 2.5.1 is installed, >=2.6 is needed"),
        ("inductor", {"torch": "2.8.0"}, "torch 2.8.0 is installed, >=2.13 is needed"),
        (
            "openvino",
            {"torch": "2.13.0"},
            'openvino is not installed. Run: pip install "torch>=2.8" "openvino>=2026.4"',
        ),
        (
            "openvino_int8",
            {"torch": "2.13.0", "openvino": "2026.4.1"},
            'nncf is not installed. Run: pip install "torch>=2.8" "openvino>=2026.4" "nncf>=3.4"',
        ),
        (
            "onnxruntime",
            {"torch": "2.13.0"},
            "onnxruntime is not installed and onnxscript is not installed. "
            'Run: pip install "torch>=2.13" "onnxruntime>=1.32" "onnxscript>=0.7"',
        ),
    ],
)
def test_the_verdict_names_missing_packages(
    engine: str, packages: dict[str, str], reason: str
) -> None:
    verdict = verdict_on(engine, fake_host(packages=packages))
    assert bool(verdict) is not bool(reason)
    assert reason in str(verdict)


@pytest.mark.parametrize(
    ("engine", "reason"),
    [
        ("inductor", "torch.compile"),
        ("zentorch", "torch.compile"),
        ("onnxruntime", "export to ONNX"),
        ("openvino_int8", "NNCF"),
        ("ipex", "IPEX"),
    ],
)
def test_engines_that_exclude_bettertransformer(engine: str, reason: str) -> None:
    with pytest.raises(cpuaccel.PipelineError) as caught:
        cpuaccel.explain(torch.nn.Linear(1, 1), ["bettertransformer", engine])
    excluded = f"{engine} can't be used together with bettertransformer: "
    (problem,) = [p for p in caught.value.problems if p.startswith(excluded)]
    assert reason in problem


class LoopsOverValues(torch.nn.Module):
    """Its export fails, and torch prints the graph up to there."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for step in range(int(x.abs().max())):
            x = x + step
        return x


@pytest.mark.parametrize("engine", [name for name, facts in FACTS.items() if not unmet(facts)])
def test_a_reason_is_one_line_and_the_whole_text_is_logged_at_debug(
    engine: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, logger="cpuaccel"):
        fast = cpuaccel.optimize(Untraceable(), [engine], example_inputs=torch.randn(2, 8))
    (outcome,) = fast.report.outcomes
    assert outcome.status is Status.FAILED
    assert "\n" not in outcome.reason
    assert len(outcome.reason) < 300
    assert any(r.levelno == logging.DEBUG and r.exc_info for r in caplog.records)


class Detached(torch.nn.Module):
    """Like a LightningModule: it has a property that raises without a trainer."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(8, 4)

    @property
    def trainer(self) -> object:
        raise RuntimeError("Detached is not attached to a `Trainer`.")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = self.linear(x)
        return hidden.relu()


@pytest.mark.parametrize(
    "engine",
    [name for name in ("jit", "onnxruntime", "openvino", "inductor") if not unmet(FACTS[name])],
)
@pytest.mark.parametrize("inside", [False, True], ids=["the model", "a part of it"])
def test_a_property_that_raises_is_not_read(engine: str, inside: bool) -> None:
    model = torch.nn.Sequential(Detached()).eval() if inside else Detached().eval()
    x, search = torch.randn(2, 8), torch._jit_internal.module_has_exports
    fast = cpuaccel.optimize(model, [engine], example_inputs=x, strict=True, tolerance=TOLERANT)
    with torch.no_grad():
        torch.testing.assert_close(fast(x), model(x), rtol=0, atol=TOLERANT)
    assert set(fast.report.calls) == {"optimized"}
    assert torch._jit_internal.module_has_exports is search


@pytest.mark.parametrize(
    "engine",
    [name for name in ("onednn", "int8", "onnxruntime") if not unmet(FACTS[name])],
)
def test_a_failed_export_prints_nothing(
    engine: str, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    stream = sys.stderr
    with caplog.at_level(logging.DEBUG, logger="cpuaccel"):
        fast = cpuaccel.optimize(
            LoopsOverValues(),
            [engine],
            example_inputs=torch.full((2, 3), 4.0),
            freeze_values=True,
        )
    assert "GuardOnDataDependent" in fast.report.outcomes[0].reason
    printed = capfd.readouterr()
    assert "def forward" not in printed.err + printed.out
    assert "Unable to find user code" not in printed.err
    assert any("def forward" in record.getMessage() for record in caplog.records)
    assert sys.stderr is stream


@pytest.mark.parametrize(
    "engine",
    [n for n in ("jit", "onednn", "onnxruntime", "openvino", "inductor") if not unmet(FACTS[n])],
)
@pytest.mark.parametrize(
    ("name", "layers"), [("bert-text", "num_hidden_layers"), ("distilbert-text", "n_layers")]
)
def test_a_row_that_is_all_padding_is_computed_as_the_original_does(
    engine: str, name: str, layers: str
) -> None:
    """Fused attention returns zero for it; distilbert's relu may hide a NaN."""
    model, inputs = encoder(name, **{layers: 1}), batch(name, 3, 12, right)
    fast = cpuaccel.optimize(model, [engine], example_inputs=inputs, strict=True)
    inputs["attention_mask"] = inputs["attention_mask"].clone()
    inputs["attention_mask"][1] = 0
    with torch.no_grad():
        expected = model(**inputs).logits
    for _ in range(6):
        torch.testing.assert_close(fast(**inputs).logits, expected, rtol=1e-4, atol=1e-5)
    assert set(fast.report.calls) == {"optimized"}, fast.report


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


def test_engines_in_one_process_change_neither_torch_nor_each_other() -> None:
    for name in COMPILER:  # import before the first comparison
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    model = encoder("bert-token", num_hidden_layers=1)
    inputs = batch("bert-token", 2, 12, right)
    engines = [name for name, facts in FACTS.items() if not unmet(facts)]
    assert "jit" in engines

    def eager() -> torch.Tensor:
        with torch.no_grad():
            logits: torch.Tensor = model(**inputs).logits
        return logits

    expected, before = eager(), settings()
    built: dict[str, cpuaccel.OptimizedModel] = {}
    outputs: dict[str, torch.Tensor] = {}
    for engine in engines:
        built[engine] = cpuaccel.optimize(
            model,
            [cpuaccel.Step(engine, **OPTIONS.get(engine, {}))],
            example_inputs=inputs,
            strict=True,
            tolerance=TOLERANT,
        )
        outputs[engine] = built[engine](**inputs).logits
        assert changed(before, settings()) == [], engine
        assert torch.equal(eager(), expected), engine
    for engine, fast in reversed(built.items()):
        output = fast(**inputs).logits
        coarse = cpuaccel.backends()[engine].tolerance > 0
        tolerance = TOLERANT if coarse else TOLERANCE["float32"]
        assert_same_output(output, expected, inputs, tolerance)
        assert torch.equal(output, outputs[engine]), engine
        assert set(fast.report.calls) == {"optimized"}, fast.report
    assert changed(before, settings()) == []
    assert torch.equal(eager(), expected)
