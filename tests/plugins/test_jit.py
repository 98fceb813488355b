from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

import cpuaccel
from cpuaccel.testing import BackendContract, fake_host, tiny_text_model
from tests.conftest import Python
from tests.plugins.engines import EngineContract, verdict_on
from tests.plugins.models import (
    Branches,
    Conditional,
    DividesByLength,
    Inputs,
    LoopsOverRows,
    Nested,
    assert_all_optimized,
    original,
    text_batch,
    unseen,
)
from tests.plugins.outputs import assert_outputs_match
from tests.required import BF16, requires

BY_NAME = tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 0)


class TestContract(EngineContract):
    backend = "jit"
    call = "torch.jit.trace"

    def check_evidence(self, evidence: cpuaccel.Evidence) -> None:
        assert int(evidence["graph_nodes"]) > 0
        assert evidence["frozen"] == "yes"
        assert evidence["inputs_bound"] == ("by name" if BY_NAME else "by position")


class TestUnfrozen(BackendContract):
    backend = "jit"
    options: ClassVar[dict[str, object]] = {"freeze": False}


class TestOnTransformers(BackendContract):
    backend = "jit"

    def model(self) -> torch.nn.Module:
        return tiny_text_model("BertForQuestionAnswering")


def jit(model: torch.nn.Module, example: Any, **options: Any) -> cpuaccel.OptimizedModel:
    fast = cpuaccel.optimize(model, ["jit"], example_inputs=example, strict=True, **options)
    assert fast.report.applied == ("jit",)
    return fast


@pytest.mark.parametrize(
    "shuffle",
    [lambda names: names, lambda names: names[::-1], lambda names: [names[1], names[2], names[0]]],
    ids=["forward's order", "reversed", "rotated"],
)
def test_a_batch_with_labels_in_any_order(shuffle: Callable[[list[str]], list[str]]) -> None:
    model = tiny_text_model("BertForSequenceClassification")

    def labelled(inputs: Inputs) -> Inputs:
        inputs = {**inputs, "labels": torch.arange(len(inputs["input_ids"])) % 2}
        return {name: inputs[name] for name in shuffle(list(inputs))}

    fast = jit(model, labelled(text_batch()))
    for inputs in unseen():
        assert_outputs_match(fast, model, labelled(inputs), 1e-5)
    assert_all_optimized(fast)


def test_labels_may_come_and_go() -> None:
    model = tiny_text_model("BertForSequenceClassification")
    model.config.problem_type = "single_label_classification"  # set by the first call with labels
    fast = jit(model, text_batch())
    with_labels = {**text_batch(3), "labels": torch.tensor([0, 1, 0])}
    assert_outputs_match(fast, model, with_labels, 1e-5)
    assert_outputs_match(fast, model, text_batch(3), 1e-5)
    assert_all_optimized(fast)
    assert len(fast.report.variants) == 2


@pytest.mark.parametrize("flag", ["output_hidden_states", "return_dict"])
def test_an_input_that_is_a_flag(flag: str) -> None:
    model = tiny_text_model("BertModel")
    value = flag == "output_hidden_states"
    fast = jit(model, {**text_batch(), flag: value})
    for inputs in unseen():
        output = fast(**inputs, **{flag: value})
        expected = model(**inputs, **{flag: value})
        assert type(output) is type(expected)
        assert len(output) == len(expected)
        torch.testing.assert_close(output[0], expected[0].detach())
    assert_all_optimized(fast)


def test_positional_tensors() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    fast = jit(model.eval(), torch.ones(2, 4))
    for size in (1, 2, 7):
        inputs = torch.randn(size, 4)
        torch.testing.assert_close(fast(inputs), model(inputs).detach())
        torch.testing.assert_close(fast(input=inputs), model(inputs).detach())
    assert_all_optimized(fast)


def test_a_gap_between_the_inputs() -> None:
    model = Conditional().eval()
    x, scale = torch.randn(2, 4), torch.full((1,), 3.0)
    fast = jit(model, {"scale": scale, "x": x, "negate": True})
    torch.testing.assert_close(
        fast(x, None, scale, negate=True), model(x, None, scale, negate=True).detach()
    )
    torch.testing.assert_close(
        fast(x, scale=scale, negate=True), model(x, scale=scale, negate=True).detach()
    )
    assert len(fast.report.variants) == 1
    torch.testing.assert_close(fast(x, scale), model(x, scale).detach())
    assert len(fast.report.variants) == 2
    assert_all_optimized(fast)


def test_nested_outputs_are_restored() -> None:
    model = Nested().eval()
    fast = jit(model, torch.randn(2, 4))
    inputs = torch.randn(5, 4)
    output, expected = fast(inputs), model(inputs)
    assert list(output) == ["last", "states", "heads", "count"]
    assert output["count"] == 3
    assert isinstance(output["states"], tuple)
    assert isinstance(output["heads"], list)
    torch.testing.assert_close(output["states"][1][1], expected["states"][1][1].detach())
    torch.testing.assert_close(output["heads"][0]["score"], expected["heads"][0]["score"].detach())
    assert_all_optimized(fast)


@pytest.mark.parametrize(
    ("model", "example", "axis", "others"),
    [
        (LoopsOverRows, torch.ones(2, 4), "batch", [torch.randn(n, 4) for n in (1, 3, 5)]),
        (Branches, torch.full((2, 4), 3.0), "batch", [torch.randn(n, 4) for n in (1, 3, 5)]),
        (
            DividesByLength,
            torch.ones(2, 6, dtype=torch.long),
            "length",
            [torch.ones(2, n, dtype=torch.long) for n in (3, 6, 9)],
        ),
    ],
    ids=["loop over rows", "branch on the batch size", "length baked in"],
)
def test_a_shape_that_the_trace_froze_is_found(
    model: type[torch.nn.Module], example: torch.Tensor, axis: str, others: list[torch.Tensor]
) -> None:
    eager = model().eval()
    fast = jit(eager, example)
    domain = fast.variants[0].domain
    assert axis in domain.frozen or axis not in (domain.ranges or ()) or domain.guards is not None
    for inputs in (example, *others, *others):
        torch.testing.assert_close(fast(inputs), eager(inputs).detach())
    assert_all_optimized(fast)
    assert 1 < len(fast.report.variants) <= len({x.shape for x in (example, *others)})


def test_a_model_that_reads_its_inputs_values_is_refused_or_right() -> None:
    class CountsTokens(torch.nn.Module):
        def forward(self, x: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            return x * float(attention_mask.sum())

    model, x = CountsTokens(), torch.ones(2, 4)
    mask = torch.ones(2, 4)
    fast = cpuaccel.optimize(model, ["jit"], example_inputs=(x, mask))
    assert fast.report.applied == ()
    assert "reads values of its inputs at" in fast.report.outcomes[0].reason
    assert "float(attention_mask.sum())" in fast.report.outcomes[0].reason
    mask[0, 2:] = 0
    assert torch.equal(fast(x, mask), model(x, mask))


def test_a_model_that_cannot_be_traced_says_why() -> None:
    class Untraceable(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> dict[str, object]:
            return {"x": x, "cache": object()}

    fast = cpuaccel.optimize(Untraceable(), ["jit"], example_inputs=torch.ones(2, 2))
    (outcome,) = fast.report.outcomes
    assert outcome.reason == "forward returns a object, which holds more than tensors"
    assert torch.equal(fast(torch.ones(2, 2))["x"], torch.ones(2, 2))


@requires(BF16)
def test_bfloat16() -> None:
    model = tiny_text_model("BertForTokenClassification")
    fast = cpuaccel.optimize(
        model, ["jit"], example_inputs=text_batch(), dtype="bfloat16", strict=True
    )
    assert fast.report.applied == ("dtype", "jit")
    for inputs in unseen():
        output, expected = fast(**inputs).logits, original(model, inputs).logits
        assert output.dtype is torch.float32
        torch.testing.assert_close(output, expected, rtol=0.05, atol=0.05)
        assert not torch.equal(output, expected)
    assert_all_optimized(fast)


LOAD = """
import sys
sys.modules["cpuaccel"] = None
sys.modules["transformers"] = None
import warnings
warnings.simplefilter("ignore")
import torch
script = torch.jit.load(sys.argv[1])
inputs = torch.load(sys.argv[2], weights_only=True)
torch.save(script(**inputs), sys.argv[3])
"""


@pytest.mark.parametrize("freeze", [True, False], ids=["frozen", "not frozen"])
def test_a_saved_script_needs_no_cpuaccel(tmp_path: Path, python: Python, freeze: bool) -> None:
    model = tiny_text_model("BertForQuestionAnswering")
    step = cpuaccel.Step("jit", freeze=freeze)
    fast = cpuaccel.optimize(model, [step], example_inputs=text_batch(), strict=True)
    (script,) = [path for path in fast.save(tmp_path) if path.suffix == ".pt"]
    inputs = text_batch(3, 9, right=4)
    torch.save(inputs, tmp_path / "inputs")
    python(LOAD, str(script), str(tmp_path / "inputs"), str(tmp_path / "outputs"))
    output = torch.load(tmp_path / "outputs", weights_only=True)
    expected = original(model, inputs)
    assert len(output) == len(expected) == 2
    for mine, theirs in zip(output, expected.values()):
        torch.testing.assert_close(mine, theirs)


def test_a_python_that_torchscript_does_not_support_is_refused() -> None:
    verdict = verdict_on("jit", fake_host(python="3.14.0"))
    assert str(verdict) == "TorchScript does not support Python 3.14.0. Use Python 3.13 or older"
    assert verdict_on("jit", fake_host(python="3.13.9"))


def test_it_needs_no_vector_instructions() -> None:
    assert verdict_on("jit", fake_host(isa=frozenset(), torch_isa="DEFAULT", bf16_speed=0.01))


def test_inputs_that_hold_no_tensor_are_refused() -> None:
    verdict = cpuaccel.explain(torch.nn.Identity(), ["jit"], example_inputs=[3]).steps[0].verdict
    assert verdict.reason == "none of the inputs is a tensor"


def test_a_model_that_writes_to_its_input_is_applied_and_writes_the_same() -> None:
    model = torch.nn.Sequential(torch.nn.ReLU(inplace=True), torch.nn.Linear(8, 4)).eval()
    fast = cpuaccel.optimize(model, ["jit"], example_inputs=torch.randn(2, 8), strict=True)
    ours = torch.randn(3, 8)
    theirs = ours.clone()
    with torch.no_grad():
        torch.testing.assert_close(fast(ours), model(theirs))
    assert torch.equal(ours, theirs)
