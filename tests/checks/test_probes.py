"""Outputs are compared on probes, and backends that change them are detected."""

import logging
import math

import pytest
import torch

import cpuaccel
from cpuaccel.checks.compare import compare, has_nonfinite
from cpuaccel.checks.probes import Probe, make_probes, run_probe
from cpuaccel.model.output import leaves
from cpuaccel.model.signature import Inputs, Signature
from cpuaccel.report import Status
from tests.conftest import Offer
from tests.fake_backends import (
    Changing,
    Faithful,
    FrozenBatch,
    FrozenLength,
    MaskBlind,
    OtherType,
    batch,
    encoder,
    padded,
    same,
)

AnyBackend = type[cpuaccel.Backend[cpuaccel.Options]]


def probe(output: object, **inputs: object) -> Probe:
    return Probe("example", inputs, output, leaves(output))


def relative(reference: object, candidate: object, **inputs: object) -> float:
    return max(d.relative for d in compare(probe(reference, **inputs), candidate, encoder()))


def test_a_relative_difference_is_divided_by_the_largest_magnitude() -> None:
    reference, candidate = torch.tensor([1.0, -10.0]), torch.tensor([1.5, -10.0])
    (difference,) = compare(probe(reference), candidate, encoder())
    assert (difference.probe, difference.output) == ("example", "output")
    assert difference.absolute == 0.5
    assert difference.relative == 0.05


def test_a_coarse_tolerance_spares_few_hidden_states_of_long_rows() -> None:
    def worst(
        candidate: torch.Tensor, tolerance: float = 0.15, name: str = "last_hidden_state"
    ) -> float:
        given = probe({name: torch.ones_like(candidate)})
        return max(d.relative for d in compare(given, {name: candidate}, encoder(), tolerance))

    candidate = torch.ones(2, 600, 3)
    candidate[0, 5:7, 1] = 0.2  # two of the first row, and two of the second
    candidate[1, [0, 599], 2] = 1.9
    assert worst(candidate) == 0
    assert worst(candidate, 0.05) == pytest.approx(0.9)
    assert worst(candidate, name="logits") == pytest.approx(0.9)
    assert worst(candidate[:, :500]) == pytest.approx(0.8), "one of up to 511 is spared"
    assert worst(candidate[:, :255]) == pytest.approx(0.9)
    assert worst(candidate[0]) == pytest.approx(0.8), "a row has one position"
    candidate[1, 1] = 1.1
    assert worst(candidate) == pytest.approx(0.1)
    candidate[0, 5, 1] = -0.1
    assert worst(candidate) == pytest.approx(1.1), "off by more than there is"
    candidate[0, 5, 1] = torch.nan
    assert math.isinf(worst(candidate))


def test_only_real_tokens_are_compared() -> None:
    mask = torch.tensor([[1, 1, 0]])
    reference, candidate = torch.ones(1, 3, 2), torch.ones(1, 3, 2)
    candidate[0, 2] = 99
    assert relative(reference, candidate, attention_mask=mask) == 0
    candidate[0, 1] = 99
    assert relative(reference, candidate, attention_mask=mask) == 98


@pytest.mark.parametrize(
    ("reference", "candidate"),
    [
        (torch.ones(2), torch.ones(3)),
        (torch.ones(2), (torch.ones(2), torch.ones(2))),
        (torch.ones(2), None),
        ({"a": torch.ones(2)}, {"b": torch.ones(2)}),
        (torch.tensor([1, 2]), torch.tensor([1, 3])),
        (torch.tensor([True]), torch.tensor([False])),
        (torch.ones(1), torch.tensor([float("nan")])),
        (torch.tensor([float("nan")]), torch.ones(1)),
        (torch.tensor([float("inf")]), torch.tensor([-float("inf")])),
    ],
)
def test_another_form_integer_nan_or_infinity_is_an_infinite_difference(
    reference: object, candidate: object
) -> None:
    assert relative(reference, candidate) == float("inf")


@pytest.mark.parametrize(
    "tensor",
    [
        torch.tensor([float("nan"), 1.0]),
        torch.tensor([float("inf"), -float("inf")]),
        torch.tensor([-float("inf"), 3.0]),
        torch.zeros(2),
        torch.ones(0),
        torch.tensor([3, 4]),
    ],
)
def test_equal_tensors_have_no_difference(tensor: torch.Tensor) -> None:
    assert relative(tensor, tensor.clone()) == 0


def test_nan_and_infinity_are_detected() -> None:
    assert not has_nonfinite([torch.ones(3), torch.tensor([3])])
    assert not has_nonfinite([torch.full((10,), torch.finfo(torch.float32).max)])
    assert has_nonfinite([torch.ones(3), torch.tensor([1.0, float("nan")])])
    assert has_nonfinite([torch.tensor([float("inf"), -float("inf")])])


def test_probes_vary_batch_length_and_padding() -> None:
    model = encoder()
    signature = Signature.from_inputs(model, batch(2, 12))
    probes = make_probes(lambda inputs: model(**inputs), signature)
    (varied,) = probes.varied
    assert varied.name == "batch+length+right padding+left padding"
    mask = varied.inputs["attention_mask"]
    assert isinstance(mask, torch.Tensor)
    assert mask.shape == (3, 8)
    assert mask.tolist() == [[1] * 6 + [0] * 2, [0] * 2 + [1] * 5 + [0], [1] * 6 + [0] * 2]
    assert probes.unprobed == ()
    assert [p.name for p in probes.single()] == [
        "batch",
        "length",
        "right padding",
        "left padding",
        "padding on both sides",
    ]


@pytest.mark.parametrize("real", [1, 2, 3])
def test_no_probe_has_a_row_without_tokens(real: int) -> None:
    model = encoder()
    inputs = batch(2, 5)
    inputs["attention_mask"][:, real:] = 0
    probes = make_probes(lambda inputs: model(**inputs), Signature.from_inputs(model, inputs))
    singles = probes.single()
    assert len(singles) >= 4
    for variation in (*probes.varied, *singles):
        mask = variation.inputs["attention_mask"]
        assert isinstance(mask, torch.Tensor)
        assert bool(mask.any(1).all()), variation.name


def test_a_variation_on_which_the_original_raises_is_not_probed() -> None:
    model = torch.nn.Linear(4, 2)
    signature = Signature.from_inputs(model, torch.ones(2, 4))
    probes = make_probes(lambda inputs: model(**inputs), signature)
    assert [p.name for p in probes.varied] == ["batch"]
    assert probes.unprobed == ("length",)


def optimized(name: str, **options: object) -> cpuaccel.OptimizedModel:
    return cpuaccel.optimize(encoder(), [name], example_inputs=batch(), **options)  # type: ignore[arg-type]


def test_a_faithful_step_is_applied_and_its_differences_reported(offer: Offer) -> None:
    offer(Faithful)
    report = optimized("faithful").report
    assert report.applied == ("faithful",)
    fidelity = report.variants[0].fidelity
    assert fidelity is not None
    assert {d.probe for d in fidelity.differences} == {
        "example",
        "batch+length+right padding+left padding",
    }
    assert {d.output for d in fidelity.differences} == {"0", "1"}
    assert fidelity.worst is not None
    assert fidelity.worst.absolute == 0
    assert fidelity.frozen == ()


CHANGES_OUTPUTS = [
    pytest.param(Changing, "1 differs by", id="changing"),
    pytest.param(MaskBlind, "left padding and right padding", id="mask blind"),
    pytest.param(OtherType, "output differs by inf", id="other type"),
]


@pytest.mark.parametrize(("backend", "keyword"), CHANGES_OUTPUTS)
def test_a_step_that_changes_the_outputs_fails_and_is_logged(
    offer: Offer, caplog: pytest.LogCaptureFixture, backend: AnyBackend, keyword: str
) -> None:
    offer(backend)
    with caplog.at_level(logging.WARNING, logger="cpuaccel"):
        fast = optimized(backend.name)
    (outcome,) = fast.report.outcomes
    assert outcome.status is Status.FAILED
    assert "changes the outputs" in outcome.reason
    assert keyword in outcome.reason
    assert [record.getMessage() for record in caplog.records] == [str(outcome)]
    inputs = padded(batch(4, 9))
    assert same(fast(**inputs), encoder()(**inputs))
    assert fast.report.calls == {"fallback:not_applied": 1}


@pytest.mark.parametrize(("backend", "keyword"), CHANGES_OUTPUTS)
def test_with_strict_a_step_that_changes_the_outputs_raises(
    offer: Offer, backend: AnyBackend, keyword: str
) -> None:
    offer(backend)
    with pytest.raises(cpuaccel.StepError, match=f"{backend.name}: failed.*{keyword}"):
        optimized(backend.name, strict=True)


def test_the_steps_after_a_failed_one_are_applied(offer: Offer) -> None:
    offer(Changing, Faithful)
    fast = cpuaccel.optimize(encoder(), ["changing", "faithful"], example_inputs=batch())
    assert fast.report.applied == ("faithful",)
    assert same(fast(**batch()), encoder()(**batch()))


def test_the_users_tolerance_decides_whether_a_step_fails(offer: Offer) -> None:
    offer(Changing)
    assert optimized("changing", tolerance=0.51).report.applied == ("changing",)
    assert optimized("changing", tolerance=0.4).report.applied == ()


class Coarse(Changing):
    """Declares how much it changes the outputs."""

    name = "coarse"
    tolerance = 0.51


def test_a_backends_wider_tolerance_applies_unless_the_user_sets_one(offer: Offer) -> None:
    offer(Coarse, Changing, Faithful)
    fast = optimized("coarse")
    assert fast.report.applied == ("coarse",)
    fidelity = fast.report.variants[0].fidelity
    assert fidelity is not None
    assert fidelity.tolerance == 0.51
    assert optimized("coarse", tolerance=0.4).report.applied == ()


@pytest.mark.parametrize(
    ("steps", "applied"),
    [
        (["faithful", "coarse"], ("faithful", "coarse")),
        (["changing", "faithful"], ("faithful",)),
        (["coarse", "faithful"], ("coarse", "faithful")),
    ],
)
def test_a_declared_tolerance_applies_from_its_step_on(
    offer: Offer, steps: list[str], applied: tuple[str, ...]
) -> None:
    offer(Coarse, Changing, Faithful)
    fast = cpuaccel.optimize(encoder(), steps, example_inputs=batch())
    assert fast.report.applied == applied


@pytest.mark.parametrize(
    ("backend", "axis", "others"),
    [
        (FrozenBatch, "batch", [(5, 12), (1, 12), (5, 7)]),
        (FrozenLength, "length", [(2, 7), (2, 20), (5, 7)]),
    ],
)
def test_a_frozen_axis_is_detected_and_gets_a_variant_for_each_size(
    offer: Offer,
    backend: AnyBackend,
    axis: str,
    others: list[tuple[int, int]],
) -> None:
    offer(backend)
    model = encoder()
    fast = cpuaccel.optimize(model, [backend.name], example_inputs=batch(2, 12), strict=True)
    fidelity = fast.report.variants[0].fidelity
    assert fidelity is not None
    assert fidelity.frozen == (axis,)
    assert f"frozen: {axis}" in str(fast.report)
    for size, length in [(2, 12), *others, *others]:
        inputs = padded(batch(size, length))
        assert same(fast(**inputs), model(**inputs))
    index = 0 if axis == "batch" else 1
    assert len(fast.report.variants) == len({(2, 12)[index], *(other[index] for other in others)})
    assert fast.report.calls == {"optimized": 1 + 2 * len(others)}


def test_shapes_beyond_the_limit_of_variants_fall_back_to_the_original(
    offer: Offer, caplog: pytest.LogCaptureFixture
) -> None:
    offer(FrozenLength)
    model = encoder()
    fast = cpuaccel.optimize(model, ["frozen_length"], example_inputs=batch(2, 4))
    for length in range(4, 16):
        inputs = batch(2, length)
        assert same(fast(**inputs), model(**inputs))
    assert fast.report.calls == {"optimized": 8, "fallback:variant_limit": 4}
    assert len(caplog.records) == 1


def test_outputs_that_are_infinite_in_the_original_are_not_a_fault() -> None:
    model = encoder()
    with torch.no_grad():
        model.norm.weight.fill_(float("inf"))
    fast = cpuaccel.optimize(model, ["jit"], example_inputs=batch(), strict=True)
    fast(**batch())
    assert fast.report.calls == {"optimized": 1}


def test_a_variant_serves_the_sizes_that_another_one_excludes(offer: Offer) -> None:
    class FrozenAtTwo(FrozenBatch):
        """Frozen only where it is built for a batch of two."""

        name = "frozen_at_two"

        def apply(self, model: torch.nn.Module, context: cpuaccel.Context) -> cpuaccel.Applied:
            ids = context.signature.inputs["input_ids"]
            assert isinstance(ids, torch.Tensor)
            if len(ids) == 2:
                return super().apply(model, context)
            return Faithful.apply(self, model, context)

    offer(FrozenAtTwo)
    fast = cpuaccel.optimize(encoder(), ["frozen_at_two"], example_inputs=batch(2), strict=True)
    for _ in range(3):
        for size in (1, 2, 3):
            fast(**batch(size))
    assert len(fast.report.variants) == 2
    assert fast.report.calls == {"optimized": 9}


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_inputs_that_the_original_writes_to_are_found_in_each_mode(
    mode: type[torch.no_grad | torch.inference_mode],
) -> None:
    inputs: Inputs = {"x": torch.ones(2), "y": torch.ones(2)}

    def add(used: Inputs) -> torch.Tensor:
        x, y = used.values()
        assert isinstance(x, torch.Tensor)
        return x.add_(y)  # type: ignore[arg-type]

    with mode():
        found = run_probe(add, "example", inputs)
    assert list(found.written) == ["x"]
    assert torch.equal(inputs["x"], torch.ones(2))  # type: ignore[arg-type]


def test_calls_of_new_sizes_in_inference_mode() -> None:
    model = torch.nn.Linear(4, 4).eval()
    fast = cpuaccel.optimize(model, ["jit"], example_inputs=torch.ones(2, 4), strict=True)
    with torch.inference_mode():
        for rows in (1, 2, 5, 17, 64):
            x = torch.rand(rows, 4)
            torch.testing.assert_close(fast(x), model(x))
    assert fast.report.calls["optimized"] == 5
