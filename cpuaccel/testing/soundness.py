"""Tests with models whose code a captured graph can't follow: the outputs must be right."""

from collections.abc import Callable

import pytest
import torch

import cpuaccel
from cpuaccel.model.output import tensors
from cpuaccel.model.signature import cloned, tensors_of
from cpuaccel.testing.outputs import assert_same_output, resized
from cpuaccel.testing.subject import Subject


class Wrapped(torch.nn.Module):
    """Calls the subject's model, and does something with its tensors and inputs.

    Attributes:
        inner: the subject's model.
        scale: a number that users may change.
    """

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.scale = 1.0
        self.eval()

    def forward(self, **inputs: torch.Tensor) -> object:
        """Return the model's tensors, scaled."""
        return [tensor * self.scale for tensor in tensors(self.inner(**inputs))]


class ReadsValues(Wrapped):
    """Takes another path where the first elements of the rows differ."""

    def forward(self, **inputs: torch.Tensor) -> object:
        """Return the model's tensors, negated for some values."""
        first = _first(inputs).flatten(1)[:, 0]
        sign = -1 if bool((first == first[0]).all()) else 1
        return [tensor * sign for tensor in tensors(self.inner(**inputs))]


class BranchesOnSizes(Wrapped):
    """Takes another path for more than four rows."""

    def forward(self, **inputs: torch.Tensor) -> object:
        """Return the model's tensors, negated for many rows."""
        sign = -1 if _first(inputs).shape[0] > 4 else 1
        return [tensor * sign for tensor in tensors(self.inner(**inputs))]


class ReturnsNumbers(Wrapped):
    """Returns numbers besides tensors."""

    def forward(self, **inputs: torch.Tensor) -> object:
        """Return the model's tensors, the number of rows, and a number made from values."""
        first = _first(inputs)
        return [*tensors(self.inner(**inputs)), len(first), float(first.float().mean())]


class KeepsState(Wrapped):
    """Returns something else in each call."""

    def forward(self, **inputs: torch.Tensor) -> object:
        """Return the model's tensors, times the number of calls."""
        self.scale += 1
        return [tensor * self.scale for tensor in tensors(self.inner(**inputs))]


class WritesInputs(Wrapped):
    """Reverses the rows of its first input in place."""

    def forward(self, **inputs: torch.Tensor) -> object:
        """Return the model's tensors for the reversed rows."""
        first = _first(inputs)
        first.copy_(first.flip(0))
        return tensors(self.inner(**inputs))


class SoundnessContract(Subject):
    """Whatever a model's code depends on, the output is the original's: optimized or not."""

    @pytest.mark.parametrize(
        "kind", [ReadsValues, BranchesOnSizes, ReturnsNumbers, KeepsState, WritesInputs]
    )
    def test_outputs_are_right_whatever_the_code_depends_on(
        self, kind: Callable[[torch.nn.Module], Wrapped]
    ) -> None:
        self.need_engine()
        fast, original = self._optimize(kind(self.model())), kind(self.model())
        for name, inputs in self._calls().items():
            ours, theirs = cloned(inputs), cloned(inputs)
            with torch.no_grad():
                expected = original(**theirs)
            output = fast(**ours)
            assert_same_output(output, expected, inputs, self.tolerance(), name)
            assert _numbers(output) == _numbers(expected), name
            for key, tensor in tensors_of(ours).items():
                assert torch.equal(tensor, tensors_of(theirs)[key]), f"{name}: input {key}"

    def test_a_changed_attribute_is_noticed(self) -> None:
        self.need_engine()
        model = Wrapped(self.model())
        fast, inputs = self._optimize(model), self.example_inputs()
        fast(**inputs)
        model.scale = 3.0
        with torch.no_grad():
            expected = model(**inputs)
        assert_same_output(fast(**inputs), expected, inputs, self.tolerance())

    def test_building_leaves_the_example_as_it_was(self) -> None:
        self.need_engine()
        inputs = self.example_inputs()
        before = cloned(inputs)
        cpuaccel.optimize(WritesInputs(self.model()), self.steps(), example_inputs=inputs)
        for name, tensor in inputs.items():
            assert torch.equal(tensor, tensors_of(before)[name]), name

    def test_an_output_that_is_kept_does_not_change(self) -> None:
        fast, inputs = self.optimized_once(), self.example_inputs()
        kept = tensors(fast(**inputs))
        copies = [tensor.clone() for tensor in kept]
        for other in self._calls().values():
            fast(**other)
        assert all(torch.equal(one, other) for one, other in zip(kept, copies))

    def _optimize(self, model: torch.nn.Module) -> cpuaccel.OptimizedModel:
        return cpuaccel.optimize(model, self.steps(), example_inputs=self.example_inputs())

    def _calls(self) -> dict[str, dict[str, torch.Tensor]]:
        """Vary the values of the first input, and the number of rows where that may vary."""
        example = self.example_inputs()
        name = next(iter(example))
        calls = {
            "the example": example,
            "equal rows": {**example, name: example[name][:1].expand_as(example[name]).clone()},
        }
        if "batch" in self.varies:
            axes = cpuaccel.Signature.from_inputs(self.model(), example).axes
            for size in (3, 6):
                calls[f"batch {size}"] = resized(example, axes.batch, 0, size)
        return calls


def _first(inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    return next(iter(inputs.values()))


def _numbers(output: object) -> list[object]:
    assert isinstance(output, list)
    return [member for member in output if not isinstance(member, torch.Tensor)]
