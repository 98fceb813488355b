"""IPEX's fusions by model and setting: the table of docs/ipex_fusions.md, for two layers."""

from typing import Any

import pytest
import torch

import cpuaccel
from tests.conftest import Python
from tests.required import BF16, ROOT, requires
from tests.stacks.cases import example_of, model_of

MHA, SCORES, CONCAT, ADD, GELU, NORM = (
    "multi-head attention",
    "matmul+div",
    "concat linear",
    "linear+add",
    "linear+gelu",
    "add+layernorm",
)
ONEDNN = {CONCAT: 2, ADD: 4, GELU: 2}
FUSIONS: dict[str, tuple[dict[str, int], dict[str, int]]] = {
    "bert-qa": ({**ONEDNN, MHA: 2}, {CONCAT: 2, MHA: 2, NORM: 4}),
    "roberta-qa": ({**ONEDNN, MHA: 2}, {CONCAT: 2, MHA: 2, NORM: 4}),
    "distilbert-qa": ({**ONEDNN, MHA: 2, NORM: 1}, {CONCAT: 2, MHA: 2, NORM: 5}),
    "vit": ({**ONEDNN, SCORES: 2}, {CONCAT: 2, SCORES: 2, NORM: 1}),
    "wav2vec2": ({**ONEDNN, NORM: 1}, {CONCAT: 2, NORM: 5}),
}
"""By model: with oneDNN (float32 with auto_kernel_selection, and bfloat16), and with MKL."""


def optimize(name: str, dtype: str, attention: str = "eager", **options: Any) -> dict[str, Any]:
    """Jit's evidence after ipex."""
    fast = cpuaccel.optimize(
        model_of(name, attn_implementation=attention),
        [cpuaccel.Step("ipex", **options), "jit"],
        dtype=dtype,
        example_inputs=example_of(name),
        strict=True,
    )
    return dict(fast.report.outcomes[-1].evidence)


def fusions(evidence: dict[str, Any]) -> dict[str, int]:
    found = {
        name: evidence[name] for name in (MHA, SCORES, CONCAT, ADD, GELU, NORM) if name in evidence
    }
    assert evidence["fusions"] == sum(found.values())
    return found


@pytest.mark.parametrize("name", FUSIONS)
def test_float32_with_onednn(name: str) -> None:
    assert fusions(optimize(name, "float32")) == FUSIONS[name][0]


@pytest.mark.parametrize("name", FUSIONS)
def test_sdpa_is_fused_only_with_the_option(name: str) -> None:
    unchanged = optimize(name, "float32", "sdpa")
    expected = {n: c for n, c in FUSIONS[name][0].items() if n not in {MHA, SCORES}}
    assert fusions(unchanged) == expected
    rebuilt = optimize(name, "float32", "sdpa", eager_attention=True)
    assert fusions(rebuilt) == FUSIONS[name][0]


@pytest.mark.parametrize("name", FUSIONS)
def test_float32_with_mkl(name: str) -> None:
    evidence = optimize(name, "float32", auto_kernel_selection=False)
    assert fusions(evidence) == FUSIONS[name][1]


@requires(BF16)
@pytest.mark.parametrize("auto_kernel_selection", [True, False])
@pytest.mark.parametrize("name", FUSIONS)
def test_bfloat16(name: str, auto_kernel_selection: bool) -> None:
    evidence = optimize(name, "bfloat16", auto_kernel_selection=auto_kernel_selection)
    counted = {n: c for n, c in fusions(evidence).items() if n != SCORES}
    assert counted == {n: c for n, c in FUSIONS[name][0].items() if n != SCORES}


def test_without_freezing_linears_are_not_concatenated() -> None:
    name = "bert-qa"
    fast = cpuaccel.optimize(
        model_of(name, attn_implementation="eager"),
        ["ipex", cpuaccel.Step("jit", freeze=False)],
        example_inputs=example_of(name),
        strict=True,
    )
    assert fusions(dict(fast.report.outcomes[-1].evidence)) == {ADD: 4, GELU: 2, MHA: 2}


def test_the_classifiers_tanh_is_fused_too() -> None:
    assert optimize("bert-text", "float32")["linear+tanh"] == 1


class Softsign(torch.nn.Module):
    """One linear, and nothing around it that IPEX fuses."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(64, 64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.softsign(self.linear(x))


class Activated(torch.nn.Module):
    def __init__(self, first: torch.nn.Module, activation: torch.nn.Module) -> None:
        super().__init__()
        self.first = first
        self.activation = activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.activation(self.first(x))
        return output


@pytest.mark.parametrize("first", ["linear", "conv"])
@pytest.mark.parametrize(
    ("activation", "name"),
    [
        (torch.nn.ELU(), "elu"),
        (torch.nn.GELU(), "gelu"),
        (torch.nn.Hardsigmoid(), "hardsigmoid"),
        (torch.nn.Hardswish(), "hardswish"),
        (torch.nn.Hardtanh(), "hardtanh"),
        (torch.nn.LeakyReLU(), "leaky_relu"),
        (torch.nn.Mish(), "mish"),
        (torch.nn.ReLU(), "relu"),
        (torch.nn.ReLU6(), "hardtanh"),
        (torch.nn.Sigmoid(), "sigmoid"),
        (torch.nn.SiLU(), "silu"),
        (torch.nn.Tanh(), "tanh"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, torch.nn.Module) else value,
)
def test_fused_activations_are_counted(first: str, activation: torch.nn.Module, name: str) -> None:
    layer = torch.nn.Linear(64, 64) if first == "linear" else torch.nn.Conv2d(8, 8, 3)
    x = torch.randn(4, 64) if first == "linear" else torch.randn(2, 8, 12, 12)
    fast = cpuaccel.optimize(
        Activated(layer, activation).eval(), ["ipex", "jit"], example_inputs=x, strict=True
    )
    evidence = fast.report.outcomes[1].evidence
    assert (evidence["fusions"], evidence.get(f"{first}+{name}")) == (1, 1), evidence


def test_switched_off_fusions_fail_jit(python: Python) -> None:
    done = python(
        """
import torch, cpuaccel
import intel_extension_for_pytorch as ipex
model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.GELU()).eval()
def outcome(steps):
    fast = cpuaccel.optimize(model, steps, example_inputs=torch.randn(4, 64))
    return fast.report.outcomes[-1]
ipex.enable_onednn_fusion(False)
print("off:", outcome(["ipex", "jit"]))
print("without ipex:", outcome(["jit"]).status)
ipex.enable_onednn_fusion(True)
print("on:", outcome(["ipex", "jit"]).evidence["linear+gelu"])
ipex._C.disable_jit_concat_linear()
print("in part:", outcome(["ipex", "jit"]).evidence["ipex_switched_off"])
"""
    )
    lines = [line for line in done.stdout.splitlines() if ": " in line]
    assert lines == [
        "off: jit: failed. IPEX's graph fusions are switched off in this process. Call "
        "intel_extension_for_pytorch.enable_onednn_fusion(True), or leave jit out.",
        "without ipex: applied",
        "on: 1",
        "in part: concat linear",
    ]


def test_where_none_fires_the_report_says_so() -> None:
    fast = cpuaccel.optimize(
        Softsign().eval(), ["ipex", "jit"], example_inputs=torch.randn(4, 64), strict=True
    )
    assert fast.report.applied == ("ipex", "jit")
    assert fast.report.outcomes[1].evidence["fusions"] == 0
    assert "fusions 0" in str(fast.report)


def test_ipex_without_jit_claims_no_fusion() -> None:
    fast = cpuaccel.optimize(
        model_of("bert-qa"), ["ipex"], example_inputs=example_of("bert-qa"), strict=True
    )
    assert fast.report.outcomes[0].evidence == {
        "Linear_modules": 13,
        "graph_fusions": "only with a following jit, which counts them",
    }


def test_ipex_changes_plain_jit_in_its_process_and_the_evidence_shows_it(python: Python) -> None:
    done = python(
        """
import cpuaccel
from tests.stacks.cases import example_of, model_of
model, inputs = model_of("bert-qa"), example_of("bert-qa")
for steps in (["jit"], ["ipex"], ["jit"]):
    fast = cpuaccel.optimize(model, steps, example_inputs=inputs, strict=True)
    evidence = fast.report.outcomes[-1].evidence
    print("evidence", {k: v for k, v in evidence.items() if k == "fusions" or "+" in k})
""",
        path=(ROOT,),
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("evidence")]
    assert lines == [
        "evidence {'fusions': 0}",
        "evidence {}",
        "evidence {'fusions': 4, 'add+layernorm': 4}",
    ]
