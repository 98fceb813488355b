"""The form of an output: its type, and the dtypes and shapes of its tensors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from cpuaccel.checks.probes import Probes
from cpuaccel.model.output import tensors
from cpuaccel.model.signature import Axes

BATCH, LENGTH = "batch", "length"

Size = int | str | None
"""The size of an axis: a constant, the ``batch`` or ``length`` of the inputs, or unknown."""


@dataclass(frozen=True)
class TensorForm:
    """The dtype of a tensor, and the size of each of its axes."""

    dtype: torch.dtype
    sizes: tuple[Size, ...]


@dataclass(frozen=True)
class OutputForm:
    """What the original's outputs have in common on the example and its variations."""

    kind: type
    tensors: tuple[TensorForm, ...]
    axes: Axes

    @classmethod
    def infer(cls, probes: Probes, axes: Axes) -> "OutputForm | None":
        """Infer the form from probes; None where the outputs differ in more than sizes."""
        all_probes = (probes.example, *probes.varied)
        outputs = [[leaf.tensor for leaf in probe.reference] for probe in all_probes]
        kinds = {
            (type(probe.output), *((t.dtype, t.dim()) for t in output))
            for probe, output in zip(all_probes, outputs)
        }
        if len(kinds) > 1:
            return None
        input_sizes = [_input_sizes(probe.inputs, axes) for probe in all_probes]
        forms = tuple(
            TensorForm(same[0].dtype, tuple(_sizes([t.shape for t in same], input_sizes)))
            for same in zip(*outputs)
        )
        return cls(type(probes.example.output), forms, axes)

    def mismatch(
        self, inputs: Mapping[str, object], output: object, flat: list[torch.Tensor]
    ) -> str | None:
        """Describe how an output, with its tensors ``flat``, differs from this form, or None."""
        if type(output) is not self.kind:
            return f"a {type(output).__name__} instead of a {self.kind.__name__}"
        if len(flat) != len(self.tensors):
            return f"{len(flat)} tensors instead of {len(self.tensors)}"
        batch, length = _input_sizes(inputs, self.axes)
        for tensor, expected in zip(flat, self.tensors):
            if tensor.dtype is not expected.dtype:
                return f"a tensor of {tensor.dtype} instead of {expected.dtype}"
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
        return None

    def corrected(self, inputs: Mapping[str, object], output: object) -> "OutputForm | None":
        """Remove the sizes that an output of the original contradicts; None if more differs."""
        flat = tensors(output)
        if type(output) is not self.kind or [(t.dtype, t.dim()) for t in flat] != [
            (expected.dtype, len(expected.sizes)) for expected in self.tensors
        ]:
            return None
        named = dict(zip((BATCH, LENGTH), _input_sizes(inputs, self.axes)))

        def confirmed(size: int, wanted: Size) -> Size:
            expected = named[wanted] if isinstance(wanted, str) else wanted
            return wanted if size == expected else None

        return replace(
            self,
            tensors=tuple(
                replace(expected, sizes=tuple(map(confirmed, tensor.shape, expected.sizes)))
                for tensor, expected in zip(flat, self.tensors)
            ),
        )


def same_form(one: object, other: object) -> bool:
    """Whether two outputs have the same type, and tensors of the same dtypes and shapes."""
    return type(one) is type(other) and [(t.dtype, t.shape) for t in tensors(one)] == [
        (t.dtype, t.shape) for t in tensors(other)
    ]


def _input_sizes(inputs: Mapping[str, object], axes: Axes) -> tuple[int | None, int | None]:
    batch = inputs[axes.batch[0]].shape[0] if axes.batch else None  # type: ignore[attr-defined]
    length = inputs[axes.length[0]].shape[1] if axes.length else None  # type: ignore[attr-defined]
    return batch, length


def _sizes(
    shapes: Sequence[torch.Size], input_sizes: Sequence[tuple[int | None, int | None]]
) -> list[Size]:
    """Infer the size of each axis from how it varied with the inputs over all probes."""
    batches, lengths = ([pair[i] for pair in input_sizes] for i in (0, 1))
    varied = all(len({*series}) > 1 for series in (batches, lengths) if None not in series)
    inferred: list[Size] = []
    for sizes in zip(*shapes):
        follows = [
            name
            for name, series in ((BATCH, batches), (LENGTH, lengths))
            if list(sizes) == series and len({*series}) > 1
        ]
        if len(follows) == 1:
            inferred.append(follows[0])
        elif len({*sizes}) == 1 and varied:
            inferred.append(sizes[0])
        else:
            inferred.append(None)
    return inferred
