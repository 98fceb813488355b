"""What candidates are measured on: batches, how often each is called, and what tells them apart."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from cpuaccel.errors import SignatureError
from cpuaccel.model.signature import MASK, Binder, ExampleInputs, Inputs, Signature, tensors_of

Batches = ExampleInputs | Sequence[ExampleInputs]
"""One batch as ``optimize`` takes it, or a list of such."""


@dataclass(frozen=True)
class Shape:
    """What may decide which candidate answers a call.

    Attributes:
        rows: the batch size.
        length: the sequence length, padding included; 0 where inputs have none.
        padding: the share of the tokens that is padding, from 0 to 1.
    """

    rows: int
    length: int
    padding: float

    @classmethod
    def of(cls, inputs: Mapping[str, object]) -> "Shape":
        """Read from a call's inputs, in microseconds."""
        mask = inputs.get(MASK)
        if isinstance(mask, torch.Tensor) and mask.dim() == 2 and mask.numel():
            rows, length = mask.shape
            return cls(rows, length, 1 - int(mask.count_nonzero()) / mask.numel())
        first = next((v for v in inputs.values() if isinstance(v, torch.Tensor)), None)
        if first is None:
            return cls(1, 0, 0.0)
        rows = first.shape[0] if first.dim() else 1
        return cls(rows, first.shape[1] if first.dim() in (2, 3) else 0, 0.0)

    def __str__(self) -> str:
        size = f"{self.rows} x {self.length}" if self.length else f"{self.rows} rows"
        return f"{size}, {self.padding:.0%} padding" if self.padding else size


@dataclass(frozen=True)
class Workload:
    """The example batches.

    Attributes:
        batches: inputs by name, in ``forward``'s order.
        weights: how often each is called, in all 1.
        shapes: what tells them apart.
    """

    batches: tuple[Inputs, ...]
    weights: tuple[float, ...]

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """One for each batch."""
        return tuple(Shape.of(batch) for batch in self.batches)

    @property
    def mean_rows(self) -> float:
        """Rows of a call, on average."""
        return sum(w * s.rows for w, s in zip(self.weights, self.shapes))

    @classmethod
    def of(
        cls, model: torch.nn.Module, batches: Batches, traffic: Mapping[int, float] | None = None
    ) -> "Workload":
        """Bind one batch or several; make one for each length of a traffic histogram.

        Raises:
            SignatureError: a batch is none that ``forward`` takes, or has no length to vary.
        """
        binder = Binder(model)
        bound = [binder.bind_example(batch) for batch in _listed(batches)]
        if traffic is None:
            return cls(tuple(bound), (1 / len(bound),) * len(bound))
        if len(bound) != 1:
            raise SignatureError(
                f"traffic was given with {len(bound)} batches. Pass one batch, which is cut or "
                "repeated to each length, or the batches alone"
            )
        signature = Signature(binder, bound[0])
        if not signature.axes.length:
            raise SignatureError(
                f"traffic tells of lengths, but these inputs have none: {signature}. Leave it out"
            )
        total = sum(traffic.values())
        return cls(
            tuple(_resized(signature, length) for length in traffic),
            tuple(share / total for share in traffic.values()),
        )


def _listed(batches: Batches) -> list[ExampleInputs]:
    """A list of mappings or of tuples is several batches; a list of tensors is one call's inputs.

    Raises:
        SignatureError: it is empty.
    """
    if isinstance(batches, Sequence) and not isinstance(batches, (str, torch.Tensor)):
        if not batches:
            raise SignatureError("example_inputs is an empty list. Pass at least one batch")
        if all(isinstance(batch, (Mapping, tuple)) for batch in batches):
            return list(batches)  # type: ignore[arg-type]
    return [batches]


def _resized(signature: Signature, length: int) -> Inputs:
    inputs, given = dict(signature.inputs), tensors_of(signature.inputs)
    for name in signature.axes.length:
        size = given[name].shape[1]
        inputs[name] = given[name].index_select(1, torch.arange(length) % size)
    return inputs
