"""Tests that compare outputs with the original's, on inputs that the backend has not seen."""

from collections.abc import Mapping

import pytest
import torch

import cpuaccel
from cpuaccel.checks.axis_groups import resize
from cpuaccel.model.output import tensors
from cpuaccel.model.signature import MASK
from cpuaccel.testing.subject import TOLERANCE, Subject

BATCH_SIZES = (1, 3, 5)
LENGTHS = (-5, 3)
"""Changes of the example's length: shorter and longer, in tokens."""


class OutputsContract(Subject):
    """The optimized model returns the original's outputs at every shape and padding."""

    def variations(self) -> dict[str, dict[str, torch.Tensor]]:
        """Vary the example as ``varies`` says. The keys name the inputs in a failure's message."""
        example = self.example_inputs()
        axes = cpuaccel.Signature.from_inputs(self.model(), example).axes
        found = {"the example": example}
        if "batch" in self.varies:
            for size in BATCH_SIZES:
                found[f"batch {size}"] = resized(example, axes.batch, 0, size)
        if "length" in self.varies:
            for change in LENGTHS:
                size = example[axes.length[0]].shape[1] + change
                found[f"length {size}"] = resized(example, axes.length, 1, size)
        unpadded = dict(found)
        for side in ("left", "right"):
            if f"{side} padding" in self.varies:
                for name, inputs in unpadded.items():
                    found[f"{name}, padded on the {side}"] = padded(inputs, side)
        return found

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    def test_outputs_match_the_original(self, dtype: str) -> None:
        self.need_dtype(dtype)
        own = dtype == "float32"
        fast = self.optimized_once() if own else self.optimize(self.model(), dtype)
        before = fast.report.calls
        for name, inputs in self.variations().items():
            assert_matches_original(fast, inputs, self.tolerance(dtype), name)
        calls = fast.report.calls - before
        assert set(calls) == {"optimized"}, "some calls fell back to the original"

    def test_output_types_match_the_original(self) -> None:
        fast, inputs = self.optimized_once(), self.example_inputs()
        with torch.no_grad():
            expected = fast.original(**inputs)
        output = fast(**inputs)
        assert type(output) is type(expected)
        assert [t.dtype for t in tensors(output)] == [t.dtype for t in tensors(expected)]

    def test_outputs_carry_no_gradient(self) -> None:
        output = self.optimized_once()(**self.example_inputs())
        assert not any(tensor.requires_grad for tensor in tensors(output))


def assert_matches_original(
    fast: cpuaccel.OptimizedModel,
    inputs: dict[str, torch.Tensor],
    tolerance: float,
    name: str = "the example",
) -> None:
    """Assert that a call of an optimized model returns the original's output."""
    with torch.no_grad():
        expected = fast.original(**inputs)
    assert_same_output(fast(**inputs), expected, inputs, tolerance, name)


def assert_same_output(
    output: object,
    expected: object,
    inputs: Mapping[str, torch.Tensor],
    tolerance: float = TOLERANCE["float32"],
    name: str = "the example",
) -> None:
    """Assert that two outputs have the same tensors within a tolerance.

    Args:
        output: the optimized model's.
        expected: the original's.
        inputs: of the call; where they have a padding mask, only real tokens are compared.
        tolerance: largest difference, relative to the largest magnitude in the expected tensor.
        name: of the inputs, for a failure's message.
    """
    mine, theirs = tensors(output), tensors(expected)
    assert len(mine) == len(theirs), name
    for index, (got, wanted) in enumerate(zip(mine, theirs)):
        where = f"{name}, output {index}"
        assert got.shape == wanted.shape, where
        mask = inputs.get(MASK)
        if mask is not None and mask.dim() == 2 and wanted.shape[:2] == mask.shape:
            got, wanted = got[mask.bool()], wanted[mask.bool()]
        if not wanted.is_floating_point():
            assert torch.equal(got, wanted), where
            continue
        assert bool(got.isfinite().all()), f"{where} is not finite"
        difference = float((got.double() - wanted.double()).abs().max())
        assert difference <= tolerance * float(wanted.double().abs().max()), where


def resized(
    inputs: Mapping[str, torch.Tensor], names: tuple[str, ...], axis: int, size: int
) -> dict[str, torch.Tensor]:
    """Resize inputs by repeating or dropping rows or tokens."""
    return {
        name: resize(tensor, axis, size) if name in names else tensor
        for name, tensor in inputs.items()
    }


def padded(inputs: Mapping[str, torch.Tensor], side: str) -> dict[str, torch.Tensor]:
    """Mask the first or last tokens of each row but the first; the number differs by row."""
    mask = torch.ones_like(inputs[MASK])
    for row in range(len(mask)):
        count = row if len(mask) > 1 else mask.shape[1] // 2
        count = min(count, mask.shape[1] - 1)
        if count:
            mask[row, slice(None, count) if side == "left" else slice(-count, None)] = 0
    return {**inputs, MASK: mask}
