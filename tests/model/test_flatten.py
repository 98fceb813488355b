import inspect

import pytest
import torch

import cpuaccel
from cpuaccel.testing import MaskedEncoder
from tests.fake_backends import batch


class Choosing(torch.nn.Module):
    def forward(
        self, x: torch.Tensor, scale: float = 1.0, y: torch.Tensor | None = None
    ) -> dict[str, object]:
        return {"sum": x * scale + (0 if y is None else y), "parts": (x, y)}


def test_tensors_in_and_tensors_out() -> None:
    model, inputs = MaskedEncoder.seeded(), batch()
    flat = cpuaccel.flatten(model, list(inputs), {})
    expected = tuple(model(**inputs))
    for output in (flat(**inputs), flat(*inputs.values())):
        assert isinstance(output, tuple)
        assert all(torch.equal(a, b) for a, b in zip(output, expected))


def test_constants_are_fixed_and_leave_no_gap_between_parameters() -> None:
    flat = cpuaccel.flatten(Choosing(), ["x", "y"], {"scale": 2.0})
    assert list(inspect.signature(flat.forward).parameters) == ["x", "y"]
    one = torch.ones(1)
    assert [t.item() for t in flat(one, one)] == [3.0, 1.0, 1.0]


def test_each_flat_module_has_its_own_parameters() -> None:
    first = cpuaccel.flatten(Choosing(), ["x"], {})
    second = cpuaccel.flatten(Choosing(), ["x", "y"], {})
    assert list(inspect.signature(first.forward).parameters) == ["x"]
    assert list(inspect.signature(second.forward).parameters) == ["x", "y"]


def test_an_output_with_other_objects_is_refused() -> None:
    class Odd(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> dict[str, object]:
            return {"x": x, "cache": object()}

    with pytest.raises(cpuaccel.BackendError, match="holds more than tensors"):
        cpuaccel.flatten(Odd(), ["x"], {})(torch.ones(1))


def test_the_model_is_shared_and_keeps_its_mode() -> None:
    model = MaskedEncoder.seeded()
    flat = cpuaccel.flatten(model, ["input_ids"], {})
    assert flat.model is model
    assert not flat.training


class ReturnsSizes(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> dict[str, object]:
        rows, length = x.shape
        return {"rows": rows, "sum": x + 1, "ends": (length * 2 - 1, rows / 2), "first": x[0, 0]}


@pytest.mark.filterwarnings("ignore:.torch.jit.trace")
@pytest.mark.filterwarnings("ignore:JIT pass will be deprecated")  # by IPEX, once imported
def test_sizes_that_a_trace_makes_tensors_of_are_left_out() -> None:
    flat, x = cpuaccel.flatten(ReturnsSizes(), ["x"], {}), torch.ones(2, 3)
    assert [tuple(t.shape) for t in flat(x)] == [(2, 3), ()]
    traced = torch.jit.trace(flat, (x,))  # type: ignore[no-untyped-call]
    assert [tuple(t.shape) for t in traced(torch.ones(4, 5))] == [(4, 5), ()]


def test_sizes_in_an_output_are_those_of_each_call() -> None:
    model = ReturnsSizes()
    fast = cpuaccel.optimize(model, ["jit"], example_inputs=torch.ones(2, 3), strict=True)
    for shape in ((2, 3), (5, 3), (2, 7)):
        assert str(fast(torch.ones(shape))) == str(model(torch.ones(shape)))
    assert fast.report.calls == {"optimized": 3}
