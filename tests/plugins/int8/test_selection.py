"""Which linears of a graph are selected for 8 bits, on hosts of any kind."""

import pytest
import torch

import cpuaccel
from cpuaccel import BackendError
from tests.models import batch, encoder, right
from tests.required import requires, unmet

pytestmark = requires("torch>=2.8")

if not unmet(("torch>=2.8",)):
    from cpuaccel_plugins.aten_graph.capture import capture
    from cpuaccel_plugins.aten_graph.cleanup import remove_redundant
    from cpuaccel_plugins.aten_graph.program import Program
    from cpuaccel_plugins.int8.choice import Int8Choice
    from cpuaccel_plugins.int8.options import Kind
    from cpuaccel_plugins.int8.selection import Selection, describe, select

LAYER = "bert.encoder.layer"


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    return encoder("bert-qa")


@pytest.fixture(scope="module")
def program(model: torch.nn.Module) -> "Program":
    captured = capture(model, cpuaccel.Signature.from_inputs(model, batch("bert-qa", 2, 24, right)))
    remove_redundant(captured)
    return captured


def selection(program: "Program", model: torch.nn.Module, **options: object) -> "Selection":
    return select(program, model, Int8Choice(measure=False), **options)  # type: ignore[arg-type]


def test_all_linears_by_default(program: "Program", model: torch.nn.Module) -> None:
    found = selection(program, model)
    assert len(found.names()) == 13
    assert not found.in_float


def test_names_are_globs_or_regular_expressions(program: "Program", model: torch.nn.Module) -> None:
    names = ("*.0.*.query", r"re:layer\.1\.output\.dense$")
    found = selection(program, model, float_names=names)
    assert describe(found.in_float) == (
        f"2 by name: {LAYER}.0.attention.self.query, {LAYER}.1.output.dense"
    )
    assert len(found.names()) == 11


def test_kinds_come_from_the_graph(program: "Program", model: torch.nn.Module) -> None:
    parts = {
        Kind.ATTENTION_IN: ["attention.self.query", "attention.self.key", "attention.self.value"],
        Kind.ATTENTION_OUT: ["attention.output.dense"],
        Kind.FFN_IN: ["intermediate.dense"],
        Kind.FFN_OUT: ["output.dense"],
    }
    found = selection(program, model, float_kinds=tuple(Kind))
    assert found.in_float == {
        **{
            f"kind {kind}": [f"{LAYER}.{n}.{p}" for n in (0, 1) for p in own]
            for kind, own in parts.items()
        },
        "kind head": ["qa_outputs"],
    }
    assert found.names() == []


def test_the_last_layer_of_a_model_without_a_head_is_none() -> None:
    """Such as an encoder's: its result is added to hidden states, as those of the layers before."""
    model = encoder("bert-qa").get_submodule("bert")
    inputs = batch("bert-qa", 2, 24, right)
    captured = capture(model, cpuaccel.Signature.from_inputs(model, inputs))
    remove_redundant(captured)
    found = selection(captured, model, float_kinds=(Kind.HEAD,))
    assert not found.in_float
    assert found.names()[-1] == "encoder.layer.1.output.dense"


def test_a_name_that_matches_no_linear_is_an_error(
    program: "Program", model: torch.nn.Module
) -> None:
    with pytest.raises(BackendError) as raised:
        selection(program, model, float_names=("*.quary",))
    assert raised.value.reason == (
        "float_names has '*.quary', which matches none of the model's 13 linears, such as "
        f"{LAYER}.0.attention.self.query, {LAYER}.0.attention.self.key, "
        f"{LAYER}.0.attention.self.value"
    )


def test_weights_that_are_not_finite_stay_in_float(
    program: "Program", model: torch.nn.Module
) -> None:
    with torch.no_grad():
        weight = model.get_submodule(f"{LAYER}.0.output.dense").weight
        before = weight[0, 0].item()
        weight[0, 0] = float("inf")
        found = selection(program, model)
        weight[0, 0] = before
    assert found.in_float == {"not representable in 8 bits": [f"{LAYER}.0.output.dense"]}
