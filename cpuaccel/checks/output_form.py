"""What an answer has to look like: its type, and its tensors' dtypes and shapes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from cpuaccel.checks.probes import Probe, Probes
from cpuaccel.model.output import tensors
from cpuaccel.model.signature import Axes

BATCH, LENGTH = "batch", "length"

Size = int | str | None
"""What an axis measures: always the same, as much as the inputs' batch or length, or unknown."""


@dataclass(frozen=True)
class _Tensor:
    dtype: torch.dtype
    sizes: tuple[Size, ...]


@dataclass(frozen=True)
class Expectation:
    """Read from what the original answered to the example and its variations.

    Attributes:
        kind: the answer's type.
        tensors: one for each tensor of it, in order.
        axes: where the inputs' batch and length are found.
    """

    kind: type
    tensors: tuple[_Tensor, ...]
    axes: Axes

    @classmethod
    def of(cls, probes: Probes, axes: Axes) -> "Expectation | None":
        """Learn from the probes; None where the original's answers differ in more than sizes."""
        all_probes = (probes.example, *probes.varied)
        answers = [[leaf.tensor for leaf in probe.reference] for probe in all_probes]
        kinds = {
            (type(probe.output), *((t.dtype, t.dim()) for t in answer))
            for probe, answer in zip(all_probes, answers)
        }
        if len(kinds) > 1:
            return None
        measured = [_measured(probe, axes) for probe in all_probes]
        expected = tuple(
            _Tensor(one[0].dtype, tuple(_sizes([tensor.shape for tensor in one], measured)))
            for one in zip(*answers)
        )
        return cls(type(probes.example.output), expected, axes)

    def doubt(self, inputs: Mapping[str, object], output: object, found: list[torch.Tensor]) -> str:
        """What an answer has that the original's would surely not have; empty if nothing.

        Args:
            inputs: the call's.
            output: the answer.
            found: its tensors.
        """
        if type(output) is not self.kind:
            return f"a {type(output).__name__} in place of a {self.kind.__name__}"
        if len(found) != len(self.tensors):
            return f"{len(found)} tensors in place of {len(self.tensors)}"
        batch, length = _lengths(inputs, self.axes)
        for tensor, expected in zip(found, self.tensors):
            if tensor.dtype is not expected.dtype:
                return f"a tensor of {tensor.dtype} in place of {expected.dtype}"
            shape = tensor.shape
            if len(shape) != len(expected.sizes):
                return f"a tensor of shape {list(shape)}"
            for size, wanted in zip(shape, expected.sizes):
                if wanted is None:
                    continue
                if wanted is BATCH:
                    wanted = batch
                elif wanted is LENGTH:
                    wanted = length
                if size != wanted:
                    return f"a tensor of shape {list(shape)}"
        return ""

    def corrected(self, inputs: Mapping[str, object], output: object) -> "Expectation | None":
        """What is still expected, now that the original itself has answered otherwise.

        Args:
            inputs: the call's.
            output: the original's answer to it.

        Returns:
            None if nothing is.
        """
        found = tensors(output)
        alike = (
            type(output) is self.kind
            and [(t.dtype, t.dim()) for t in found]
            == [(e.dtype, len(e.sizes)) for e in self.tensors]
        )  # fmt: skip
        if not alike:
            return None
        measured = dict(zip((BATCH, LENGTH), _lengths(inputs, self.axes)))
        corrected = [
            _Tensor(
                expected.dtype,
                tuple(
                    wanted if size == (measured.get(wanted) if isinstance(wanted, str) else wanted)
                    else None
                    for size, wanted in zip(tensor.shape, expected.sizes)
                ),
            )
            for tensor, expected in zip(found, self.tensors)
        ]  # fmt: skip
        return replace(self, tensors=tuple(corrected))


def same_form(one: object, other: object) -> bool:
    """Whether two answers are of the same type, with tensors of the same dtypes and shapes."""
    return type(one) is type(other) and [(t.dtype, t.shape) for t in tensors(one)] == [
        (t.dtype, t.shape) for t in tensors(other)
    ]


def _lengths(inputs: Mapping[str, object], axes: Axes) -> tuple[int | None, int | None]:
    batch = inputs[axes.batch[0]].shape[0] if axes.batch else None  # type: ignore[attr-defined]
    length = inputs[axes.length[0]].shape[1] if axes.length else None  # type: ignore[attr-defined]
    return batch, length


def _measured(probe: Probe, axes: Axes) -> tuple[int | None, int | None]:
    return _lengths(probe.inputs, axes)


def _sizes(
    shapes: Sequence[torch.Size], measured: Sequence[tuple[int | None, int | None]]
) -> list[Size]:
    """What each axis measures, judged by how it went with the inputs over all probes."""
    batches, lengths = ([pair[i] for pair in measured] for i in (0, 1))
    found: list[Size] = []
    for sizes in zip(*shapes):
        follows = [
            name
            for name, series in ((BATCH, batches), (LENGTH, lengths))
            if list(sizes) == series and len({*series}) > 1
        ]
        varied = all(len({*series}) > 1 for series in (batches, lengths) if None not in series)
        if len(follows) == 1:
            found.append(follows[0])
        elif len({*sizes}) == 1 and varied:
            found.append(sizes[0])
        else:
            found.append(None)
    return found
