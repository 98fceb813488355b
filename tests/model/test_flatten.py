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
