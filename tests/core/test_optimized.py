"""The optimized model: called like the original, never with a wrong output."""

import copy
import inspect
import logging
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

import cpuaccel
from cpuaccel import OptimizedModel, Step
from cpuaccel.report import Status
from cpuaccel.testing import MaskedEncoder
from cpuaccel.testing.state import changed, model_state
from tests.conftest import Offer
from tests.fake_backends import (
    Copying,
    Faithful,
    NanLater,
    RaisingLater,
    Unavailable,
    batch,
    encoded,
    encoder,
    padded,
    same,
)


@pytest.fixture(autouse=True)
def _backends(offer: Offer) -> None:
    offer(Copying, Faithful, NanLater, RaisingLater, Unavailable)


FAULTS = [("raising_later", "fallback:error", "RuntimeError"), ("nan_later", "fallback:nan", "NaN")]


@pytest.mark.parametrize(("backend", "key", "keyword"), FAULTS)
def test_a_call_on_which_the_engine_fails_falls_back_to_the_original(
    caplog: pytest.LogCaptureFixture, backend: str, key: str, keyword: str
) -> None:
    model = encoder()
    fast = cpuaccel.optimize(model, [backend], example_inputs=batch())
    assert fast.report.applied == (backend,)
    bad = batch(first=49)
    for _ in range(3):
        assert same(fast(**bad), model(**bad))
    assert same(fast(**batch()), model(**batch()))
    assert fast.report.calls == {key: 3, "optimized": 1}
    reason = fast.report.fallbacks[key]
    assert keyword in reason
    assert [record.getMessage() for record in caplog.records] == [
        f"falling back to the original model: {reason} (logged once, counted in report.calls)"
    ]
    assert f"calls     3 {key} ({reason}), 1 optimized" in str(fast.report)


@pytest.mark.parametrize(("backend", "key", "keyword"), FAULTS)
def test_with_strict_a_failing_engine_raises(backend: str, key: str, keyword: str) -> None:
    fast = cpuaccel.optimize(encoder(), [backend], example_inputs=batch(), strict=True)
    fast(**batch())
    with pytest.raises(cpuaccel.StepError, match=f"strict=True, but this call.*{keyword}"):
        fast(**batch(first=49))
    assert fast.report.calls == {"optimized": 1}


@pytest.mark.parametrize("strict", [False, True], ids=["lenient", "strict"])
def test_the_original_serves_calls_where_only_optional_steps_were_skipped(
    caplog: pytest.LogCaptureFixture, strict: bool
) -> None:
    model = encoder()
    steps = [Step("unavailable", optional=True)]
    fast = cpuaccel.optimize(model, steps, example_inputs=batch(), strict=strict)
    assert same(fast(**batch()), model(**batch()))
    assert fast.report.applied == ()
    assert fast.report.calls == {"fallback:not_applied": 1}
    assert caplog.records == []


def test_without_example_inputs_it_is_built_at_the_first_call() -> None:
    model = encoder()
    fast = cpuaccel.optimize(model, ["faithful"])
    assert "waiting   for the first call" in str(fast.report)
    assert fast.report.outcomes == ()
    assert same(fast(**batch()), model(**batch()))
    assert fast.report.applied == ("faithful",)


def calls() -> dict[str, Callable[[torch.nn.Module], object]]:
    inputs = batch()
    ids, mask = inputs.values()
    return {
        "by name": lambda m: m(input_ids=ids, attention_mask=mask),
        "by name in another order": lambda m: m(attention_mask=mask, input_ids=ids),
        "by position": lambda m: m(ids, mask),
        "mixed": lambda m: m(ids, attention_mask=mask),
        "without mask": lambda m: m(ids),
        "with None": lambda m: m(ids, None),
        "with a boolean mask": lambda m: m(ids, mask.bool()),
        "padded": lambda m: m(**padded(inputs)),
    }


@pytest.mark.parametrize("call", calls().values(), ids=list(calls()))
@pytest.mark.parametrize("backend", ["faithful", "jit"])
def test_every_way_of_calling_is_optimized(
    backend: str, call: Callable[[torch.nn.Module], object]
) -> None:
    model = encoder()
    fast = cpuaccel.optimize(model, [backend], example_inputs=batch(), strict=True)
    output, expected = encoded(call(fast)), encoded(call(model))
    torch.testing.assert_close(tuple(output), tuple(expected))
    assert fast.report.calls == {"optimized": 1}


def test_each_set_of_inputs_and_dtypes_gets_its_own_variant() -> None:
    fast = cpuaccel.optimize(encoder(), ["faithful"], example_inputs=batch())
    for call in calls().values():
        call(fast)
    # With a mask, without one, with a boolean mask.
    assert len(fast.report.variants) == len(fast.variants) == 3


def test_an_input_that_is_not_a_plain_value_falls_back_to_the_original(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Listing(torch.nn.Module):
        def forward(self, parts: list[torch.Tensor]) -> torch.Tensor:
            return parts[0] + parts[1]

    fast = cpuaccel.optimize(Listing(), ["faithful"])
    assert fast([torch.ones(1), torch.ones(1)]).item() == 2
    assert fast.report.calls == {"fallback:input_type": 1}
    assert len(caplog.records) == 1


def nested() -> torch.Tensor:
    return torch.nested.nested_tensor([torch.ones(2, 4), torch.ones(3, 4)])


class Scaled(torch.nn.Module):
    def forward(self, x: torch.Tensor, meta: dict[str, float]) -> torch.Tensor:
        return x * meta["scale"]


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize(
    ("model", "make_example", "reason"),
    [
        (Scaled(), lambda: (torch.ones(2, 4), {"scale": 2.0}), "input 'meta' is a dict"),
        (torch.nn.Linear(4, 4), nested, "input 'input' is a nested"),
        (torch.nn.Linear(4, 4), torch.eye(4).to_sparse, "sparse tensor"),
    ],
    ids=["dict", "nested", "sparse"],
)
def test_example_inputs_without_a_variant_are_reported(
    model: torch.nn.Module,
    make_example: Callable[[], torch.Tensor | tuple[object, ...]],
    reason: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    example = make_example()
    planned = cpuaccel.explain(model, ["faithful"], example_inputs=example)
    assert not planned.steps[0].verdict
    assert reason in planned.steps[0].verdict.reason

    fast = cpuaccel.optimize(model, ["faithful"], example_inputs=example)
    assert reason in caplog.text
    assert reason in str(fast.report)
    assert "there were no example_inputs" not in str(fast.report)
    with pytest.raises(cpuaccel.StepError, match=reason):
        cpuaccel.optimize(model, ["faithful"], example_inputs=example, strict=True)


def test_a_sparse_input_does_not_reach_the_variant_of_a_dense_one() -> None:
    model = torch.nn.Linear(4, 4)
    fast = cpuaccel.optimize(model, ["faithful"], example_inputs=torch.eye(4))
    with torch.no_grad():
        assert torch.equal(fast(torch.eye(4).to_sparse()), model(torch.eye(4).to_sparse()))
    assert fast.report.calls == {"fallback:input_type": 1}


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [((), {}), ((), {"ids": 1}), ((1, 2, 3), {}), ((1,), {"input_ids": 2})],
    ids=["nothing", "unknown", "too many", "twice"],
)
def test_an_invalid_call_raises_the_originals_error(
    args: tuple[object, ...], kwargs: dict[str, object]
) -> None:
    model = encoder()
    fast = cpuaccel.optimize(model, ["faithful"])
    with pytest.raises(TypeError) as expected:
        model(*args, **kwargs)
    with pytest.raises(TypeError) as raised:
        fast(*args, **kwargs)
    assert str(raised.value) == str(expected.value)


def test_it_has_the_originals_attributes() -> None:
    model = encoder()
    model.config = {"hidden": 16}  # type: ignore[assignment]
    fast = cpuaccel.optimize(model, ["faithful"])
    assert fast.original is model
    assert fast.config == {"hidden": 16}
    assert fast.embedding is model.embedding
    with pytest.raises(AttributeError, match="no_such_thing"):
        _ = fast.no_such_thing


def test_its_state_dict_is_that_of_the_original() -> None:
    model = encoder()
    fast = cpuaccel.optimize(model, ["faithful"])
    assert list(fast.state_dict()) == list(model.state_dict())
    weight = fast.state_dict()["norm.weight"]
    assert isinstance(weight, torch.Tensor)
    assert weight.data_ptr() == model.norm.weight.data_ptr()


def test_outputs_have_no_gradient_and_the_callers_grad_mode_is_unchanged() -> None:
    fast = cpuaccel.optimize(encoder(), ["faithful"])
    assert torch.is_grad_enabled()
    assert not fast(**batch()).pooled.requires_grad
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("backend", ["faithful", "copying", "jit"])
def test_loaded_weights_are_used_by_the_next_call(backend: str) -> None:
    model, other = MaskedEncoder.seeded(0), MaskedEncoder.seeded(1)
    fast = cpuaccel.optimize(model, [backend], example_inputs=batch(), strict=True)
    before = fast(**batch())
    fast.load_state_dict(other.state_dict())
    after = fast(**batch())
    assert not torch.allclose(before.pooled, after.pooled)
    torch.testing.assert_close(after.pooled, other(**batch()).pooled.detach())
    assert set(fast.report.calls) == {"optimized"}


def test_it_stays_optimized_after_loading_weights_many_times() -> None:
    fast = cpuaccel.optimize(encoder(), ["faithful"], strict=True)
    for seed in range(10):
        fast.load_state_dict(MaskedEncoder.seeded(seed).state_dict())
        fast(**batch())
    assert fast.report.calls == {"optimized": 10}


@pytest.mark.parametrize("backend", ["faithful", "copying", "jit"])
def test_training_runs_the_original_and_evaluation_uses_the_trained_weights(backend: str) -> None:
    model = encoder()
    fast = cpuaccel.optimize(model, [backend], example_inputs=batch(), strict=True)
    before = fast(**batch()).pooled
    fast.train()
    assert model.training
    optimizer = torch.optim.SGD(fast.parameters(), lr=0.5)
    fast(**batch()).pooled.pow(2).sum().backward()
    optimizer.step()
    assert fast.report.calls["fallback:training"] == 1
    fast.eval()
    assert not model.training
    after = fast(**batch()).pooled
    assert not torch.allclose(before, after)
    torch.testing.assert_close(after, model(**batch()).pooled.detach())


NO_MOVES: list[Callable[[torch.nn.Module], object]] = [
    lambda m: m.to("cpu"),
    lambda m: m.to(torch.device("cpu"), torch.float32),
    lambda m: m.float(),
    lambda m: m.eval(),
]


@pytest.mark.parametrize("backend", ["faithful", "copying", "jit"])
def test_moving_it_to_its_own_device_and_dtype_does_not_rebuild(backend: str) -> None:
    """Trainer, pipelines and sentence-transformers do this before each run."""
    fast = cpuaccel.optimize(encoder(), [backend], example_inputs=batch(), strict=True)
    built = fast.variants
    for move in NO_MOVES:
        assert move(fast) is fast
        fast(**batch())
    assert fast.variants == built
    assert len(fast.report.variants) == 1


@pytest.mark.parametrize("backend", ["faithful", "copying", "jit"])
def test_casting_it_rebuilds(backend: str) -> None:
    model = encoder()
    fast = cpuaccel.optimize(model, [backend], example_inputs=batch(), strict=True)
    fast.to("cpu", torch.float64)
    assert fast.variants == []
    output = fast(**batch()).pooled
    assert output.dtype == torch.float64
    torch.testing.assert_close(output, model(**batch()).pooled.detach())
    assert fast.report.calls == {"optimized": 1}


def test_casting_only_a_buffer_rebuilds() -> None:
    model = torch.nn.BatchNorm1d(4, affine=False).eval()
    fast = cpuaccel.optimize(model, ["jit"], example_inputs=torch.ones(2, 4), strict=True)
    fast.to(torch.float64)
    assert fast(torch.ones(2, 4, dtype=torch.float64)).dtype == torch.float64
    assert len(fast.report.variants) == 2


@pytest.mark.parametrize(
    "duplicate",
    [copy.deepcopy, lambda fast: pickle.loads(pickle.dumps(fast))],
    ids=["deepcopy", "pickle"],
)
@pytest.mark.parametrize("backend", ["faithful", "jit"])
def test_a_copy_is_optimized_and_has_its_own_weights(
    backend: str, duplicate: Callable[[OptimizedModel], OptimizedModel]
) -> None:
    model = encoder()
    fast = cpuaccel.optimize(model, [backend], example_inputs=batch(), strict=True)
    expected = fast(**batch())
    copied = duplicate(fast)
    assert isinstance(copied, OptimizedModel)
    assert copied.original is not model
    with torch.no_grad():
        model.norm.weight.zero_()
    torch.testing.assert_close(copied(**batch()).pooled, expected.pooled)
    assert copied.report.applied == (backend,)
    assert copied.report.calls == {"optimized": 1}


@pytest.mark.parametrize("backend", ["faithful", "jit"])
def test_the_callers_model_is_unchanged(backend: str) -> None:
    model = encoder().train()
    before = model_state(model)
    fast = cpuaccel.optimize(model, [backend], example_inputs=batch())
    fast(**batch())
    fast(input_ids=batch()["input_ids"])
    assert changed(before, model_state(model)) == []


@pytest.mark.parametrize("built", [False, True], ids=["building", "built"])
def test_concurrent_threads_get_right_outputs_from_one_variant(built: bool) -> None:
    model = encoder()
    example = batch() if built else None
    fast = cpuaccel.optimize(model, ["jit"], example_inputs=example, strict=True)
    sizes, rounds = (1, 2, 3, 5), 10
    expected = {size: model(**batch(size)).pooled.detach() for size in sizes}
    start = threading.Barrier(len(sizes))

    def call(size: int) -> None:
        start.wait()
        for _ in range(rounds):
            torch.testing.assert_close(fast(**batch(size)).pooled, expected[size])

    with ThreadPoolExecutor(len(sizes)) as pool:
        list(pool.map(call, sizes))  # raises what a thread raised
    assert len(fast.report.variants) == 1
    assert fast.report.calls == {"optimized": rounds * len(sizes)}


def test_the_callers_autocast_does_not_change_the_output() -> None:
    model = encoder()
    fast = cpuaccel.optimize(model, ["faithful"], example_inputs=batch(), strict=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = fast(**batch())
    torch.testing.assert_close(output.pooled, model(**batch()).pooled.detach())


def test_a_skipped_step_is_logged_once_for_all_variants(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="cpuaccel"):
        fast = cpuaccel.optimize(encoder(), ["unavailable", "faithful"])
        for call in calls().values():
            call(fast)
    assert len(fast.report.variants) == 3
    assert len(caplog.records) == 1
    assert fast.report.outcomes[0].status is Status.SKIPPED


def test_forward_has_the_originals_signature() -> None:
    """Trainer drops the columns of a dataset that are not parameters of forward."""
    model = MaskedEncoder.seeded()
    fast = cpuaccel.optimize(model, ["jit"])
    assert inspect.signature(fast.forward) == inspect.signature(model.forward)
