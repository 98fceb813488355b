"""What ``fidelity`` compares and how, and that wrong backends are found out by it."""

import logging

import pytest
import torch

import cpuaccel
from cpuaccel.checks.compare import compare, has_nonfinite
from cpuaccel.checks.probes import Probe, make_probes
from cpuaccel.model.output import leaves
from cpuaccel.model.signature import Signature
from cpuaccel.report import Status
from cpuaccel.testing import MaskedEncoder
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
)


def probe(output: object, **inputs: object) -> Probe:
    return Probe("example", inputs, output, leaves(output))


def relative(reference: object, candidate: object, **inputs: object) -> float:
    return max(d.relative for d in compare(probe(reference, **inputs), candidate, encoder()))


def test_a_difference_is_relative_to_the_largest_magnitude() -> None:
    (found,) = compare(probe(torch.tensor([1.0, -10.0])), torch.tensor([1.5, -10.0]), encoder())
    assert (found.probe, found.output) == ("example", "output")
    assert found.absolute == 0.5
    assert found.relative == 0.05


def test_only_real_tokens_count() -> None:
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
def test_what_can_never_be_close_enough(reference: object, candidate: object) -> None:
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
def test_the_same_is_the_same(tensor: torch.Tensor) -> None:
    assert relative(tensor, tensor.clone()) == 0


def test_nan_and_infinity_are_seen() -> None:
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
    for found in (*probes.varied, *probes.single()):
        mask = found.inputs["attention_mask"]
        assert isinstance(mask, torch.Tensor)
        assert bool(mask.any(1).all()), found.name


def test_a_variation_that_the_original_refuses_is_no_probe() -> None:
    model = torch.nn.Linear(4, 2)
    signature = Signature.from_inputs(model, torch.ones(2, 4))
    probes = make_probes(lambda inputs: model(**inputs), signature)
    assert [p.name for p in probes.varied] == ["batch"]
    assert probes.unprobed == ("length",)


def optimized(name: str, **options: object) -> cpuaccel.OptimizedModel:
    return cpuaccel.optimize(encoder(), [name], example_inputs=batch(), **options)  # type: ignore[arg-type]


def test_a_faithful_step_is_accepted_and_its_figures_reported(offer: Offer) -> None:
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


@pytest.mark.parametrize(
    ("backend", "reason"),
    [
        (Changing, "it changes the outputs: 1 differs by "),
        (MaskBlind, "it changes the outputs with left padding and right padding"),
        (OtherType, "it changes the outputs: output differs by inf"),
    ],
)
def test_a_step_that_changes_the_answers_is_dropped_and_named(
    offer: Offer,
    caplog: pytest.LogCaptureFixture,
    backend: type[cpuaccel.Backend[cpuaccel.Options]],
    reason: str,
) -> None:
    offer(backend)
    with caplog.at_level(logging.WARNING, logger="cpuaccel"):
        fast = optimized(backend.name)
    (outcome,) = fast.report.outcomes
    assert outcome.status is Status.FAILED
    assert outcome.reason.startswith(reason)
    assert [record.getMessage() for record in caplog.records] == [str(outcome)]
    inputs = padded(batch(4, 9))
    assert torch.equal(fast(**inputs).pooled, encoder()(**inputs).pooled)
    assert fast.report.calls == {"fallback:not_applied": 1}


@pytest.mark.parametrize("backend", [Changing, MaskBlind, OtherType])
def test_strict_raises_instead(
    offer: Offer, backend: type[cpuaccel.Backend[cpuaccel.Options]]
) -> None:
    offer(backend)
    with pytest.raises(cpuaccel.StepError, match=f"strict=True, but {backend.name}: failed"):
        optimized(backend.name, strict=True)


def test_the_others_go_on_without_the_dropped_step(offer: Offer) -> None:
    offer(Changing, Faithful)
    fast = cpuaccel.optimize(encoder(), ["changing", "faithful"], example_inputs=batch())
    assert fast.report.applied == ("faithful",)
    assert torch.equal(fast(**batch()).states, encoder()(**batch()).states)


def test_the_tolerance_is_the_users(offer: Offer) -> None:
    offer(Changing)
    assert optimized("changing", tolerance=0.51).report.applied == ("changing",)
    assert optimized("changing", tolerance=0.4).report.applied == ()


class Coarse(Changing):
    """Declares that it changes the outputs by so much."""

    name = "coarse"
    tolerance = 0.51


def test_a_backend_may_declare_a_wider_tolerance(offer: Offer) -> None:
    offer(Coarse, Changing, Faithful)
    fast = optimized("coarse")
    assert fast.report.applied == ("coarse",)
    assert fast.report.variants[0].fidelity is not None
    assert fast.report.variants[0].fidelity.tolerance == 0.51
    assert optimized("coarse", tolerance=0.4).report.applied == ()


def test_a_declared_tolerance_holds_from_its_step_on_and_not_before(offer: Offer) -> None:
    offer(Coarse, Changing, Faithful)
    fast = cpuaccel.optimize(encoder(), ["faithful", "coarse"], example_inputs=batch())
    assert fast.report.applied == ("faithful", "coarse")
    fast = cpuaccel.optimize(encoder(), ["changing", "faithful"], example_inputs=batch())
    assert fast.report.applied == ("faithful",)
    fast = cpuaccel.optimize(encoder(), ["coarse", "faithful"], example_inputs=batch())
    assert fast.report.applied == ("coarse", "faithful")


@pytest.mark.parametrize(
    ("backend", "axis", "others"),
    [
        (FrozenBatch, "batch", [(5, 12), (1, 12), (5, 7)]),
        (FrozenLength, "length", [(2, 7), (2, 20), (5, 7)]),
    ],
)
def test_a_frozen_shape_is_found_and_gets_variants(
    offer: Offer,
    backend: type[cpuaccel.Backend[cpuaccel.Options]],
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
        with torch.no_grad():
            expected = model(**inputs)
        assert all(map(torch.equal, fast(**inputs), expected))
    assert len(fast.report.variants) == 1 + len(others)
    assert fast.report.calls == {"optimized": 1 + 2 * len(others)}


def test_more_shapes_than_variants_run_the_original(
    offer: Offer, caplog: pytest.LogCaptureFixture
) -> None:
    offer(FrozenLength)
    model = encoder()
    fast = cpuaccel.optimize(model, ["frozen_length"], example_inputs=batch(2, 4))
    for length in range(4, 16):
        inputs = batch(2, length)
        with torch.no_grad():
            assert torch.equal(fast(**inputs).pooled, model(**inputs).pooled)
    assert fast.report.calls == {"optimized": 8, "fallback:variant_limit": 4}
    assert len(caplog.records) == 1


def test_a_model_whose_own_answers_are_not_finite_is_no_fault() -> None:
    model = encoder()
    with torch.no_grad():
        model.norm.weight.fill_(float("inf"))
    assert isinstance(model, MaskedEncoder)
    fast = cpuaccel.optimize(model, ["jit"], example_inputs=batch(), strict=True)
    fast(**batch())
    assert fast.report.calls == {"optimized": 1}


def test_no_variant_is_trusted_with_other_shapes_once_one_was_frozen(offer: Offer) -> None:
    class FrozenAtTwo(FrozenBatch):
        """Its probes at other sizes find nothing."""

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
    assert len(fast.report.variants) == 3
    assert fast.report.calls == {"optimized": 9}
