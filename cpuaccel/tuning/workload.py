"""The workload that candidates are measured on: batches, their shapes and their weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from cpuaccel.checks.axis_groups import resize
from cpuaccel.errors import SignatureError
from cpuaccel.model.signature import MASK, Binder, ExampleInputs, Inputs, Signature, tensors_of

Batches = ExampleInputs | Sequence[ExampleInputs]
"""One batch as in ``optimize``, or a list of batches."""


@dataclass(frozen=True)
class Shape:
    """The shape of a call, by which calls are dispatched."""

    rows: int
    length: int  # with padding; 0 if the inputs have none
    padding: float  # fraction of the tokens, from 0 to 1

    @classmethod
    def from_inputs(cls, inputs: Mapping[str, object]) -> "Shape":
        """Read the shape of a call's inputs. This takes some microseconds."""
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
    """The example batches, and the share of each in all calls."""

    batches: tuple[Inputs, ...]
    weights: tuple[float, ...]

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """The shape of each batch."""
        return tuple(Shape.from_inputs(batch) for batch in self.batches)

    @property
    def mean_rows(self) -> float:
        """Average rows of a call."""
        return sum(w * s.rows for w, s in zip(self.weights, self.shapes))

    @classmethod
    def from_batches(
        cls, model: torch.nn.Module, batches: Batches, traffic: Mapping[int, float] | None = None
    ) -> "Workload":
        """Bind batches to ``forward``'s parameters; cut or repeat one batch for ``traffic``."""
        binder = Binder(model)
        bound = [binder.bind_example(batch) for batch in _listed(batches)]
        if traffic is None:
            return cls(tuple(bound), (1 / len(bound),) * len(bound))
        if len(bound) != 1:
            raise SignatureError(
                f"traffic= needs one batch, got {len(bound)}. Pass one batch, which is cut or "
                "repeated to each length, or leave traffic out"
            )
        signature = Signature(binder, bound[0])
        if not signature.axes.length:
            raise SignatureError(
                f"traffic= needs inputs with a sequence length, got {signature}. Leave it out"
            )
        total = sum(traffic.values())
        return cls(
            tuple(_resized(signature, length) for length in traffic),
            tuple(share / total for share in traffic.values()),
        )


def _listed(batches: Batches) -> list[ExampleInputs]:
    """Return a list of batches: a list of tensors is one batch, not several."""
    if isinstance(batches, Sequence) and not isinstance(batches, (str, torch.Tensor)):
        if not batches:
            raise SignatureError("example_inputs is an empty list. Pass at least one batch")
        if all(isinstance(batch, (Mapping, tuple)) for batch in batches):
            return list(batches)  # type: ignore[arg-type]
    return [batches]


def _resized(signature: Signature, length: int) -> Inputs:
    inputs, tensors = dict(signature.inputs), tensors_of(signature.inputs)
    for name in signature.axes.length:
        inputs[name] = resize(tensors[name], 1, length)
    return inputs
