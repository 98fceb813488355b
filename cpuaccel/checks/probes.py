"""Probes: the example inputs and variations of them, with the original's outputs."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch

from cpuaccel.model.output import Leaf, leaves
from cpuaccel.model.signature import MASK, Inputs, Signature, tensors_of

RIGHT, LEFT = "right padding", "left padding"
BOTH = "padding on both sides"
PADDINGS = frozenset({RIGHT, LEFT, BOTH})

IGNORED_LABEL = -100
"""The label that the losses of Transformers ignore."""


@dataclass(frozen=True)
class Probe:
    """Inputs, and the output of the original for them."""

    name: str
    """``example``, or what was varied."""
    inputs: Inputs
    output: object
    reference: list[Leaf]
    """The tensors of the output."""


@dataclass(frozen=True)
class Probes:
    """The example and its variations.

    Attributes:
        varied: all axes varied at once if the original allows that, otherwise each on its own.
        single: runs the variations of one axis each, to find out which one is frozen.
        unprobed: the variations on which the original raised.
    """

    example: Probe
    varied: tuple[Probe, ...]
    single: Callable[[], tuple[Probe, ...]]
    unprobed: tuple[str, ...]


def make_probes(original: Callable[[Mapping[str, object]], object], signature: Signature) -> Probes:
    """Run the original on the example inputs and on variations of them.

    The original decides what may vary: a variation on which it raises is not a probe.
    """

    def probe(name: str, varied: Inputs) -> Probe:
        output = original(varied)
        return Probe(name, varied, output, leaves(output))

    def try_all(names: Iterable[str]) -> tuple[tuple[Probe, ...], tuple[str, ...]]:
        accepted, refused = [], []
        for name in names:
            try:
                accepted.append(probe(name, _vary(signature, name.split("+"))))
            except Exception:
                refused.append(name)
        return tuple(accepted), tuple(refused)

    example = probe("example", signature.inputs)
    kinds = [
        *(["batch"] if signature.axes.batch else []),
        *(["length"] if signature.axes.length else []),
        *([RIGHT, LEFT] if signature.masked else []),
    ]
    varied, refused = try_all(["+".join(kinds)] if kinds else [])
    if refused and len(kinds) > 1:
        varied, refused = try_all(kinds)
    single = [*kinds, *([BOTH] if signature.masked else [])]
    return Probes(example, varied, lambda: try_all(single)[0], refused)


def _vary(signature: Signature, kinds: list[str]) -> Inputs:
    """Vary the batch size, the length or the padding, reusing the example's values."""
    varied = dict(signature.inputs)
    for axis, (kind, names) in enumerate(
        (("batch", signature.axes.batch), ("length", signature.axes.length))
    ):
        if kind in kinds:
            for name in names:
                varied[name] = _resize(tensors_of(varied)[name], axis)
    if PADDINGS & {*kinds}:
        varied |= _pad(tensors_of(varied), kinds)
    return varied


def _resize(tensor: torch.Tensor, axis: int) -> torch.Tensor:
    size = tensor.shape[axis]
    if axis == 0:
        wanted = 3 if size == 2 else 2
    else:  # shorter rather than longer: models have a maximum length
        wanted = size - size // 3 if size > 2 else size + 1
    return tensor.index_select(axis, torch.arange(wanted) % size)


def _pad(tensors: dict[str, torch.Tensor], kinds: list[str]) -> dict[str, torch.Tensor]:
    """Pad every row on the right, including the longest one, or the longest row on the left."""
    mask = tensors[MASK].clone()
    if mask.dim() != 2 or mask.shape[1] < 2:
        return {}
    third = max(1, mask.shape[1] // 3)
    if {RIGHT, BOTH} & {*kinds}:
        mask[0::2, -third:] = 0
        mask[1::2, -1:] = 0
    if {LEFT, BOTH} & {*kinds}:
        mask[mask.sum(1).argmax(), :third] = 0  # a shorter row might not reach the padded columns
    emptied = mask.sum(1) == 0  # the output of an empty row is undefined
    mask[emptied] = tensors[MASK][emptied]
    padded = {MASK: mask}
    labels = tensors.get("labels")
    if labels is not None and labels.shape == mask.shape:
        padded["labels"] = labels.masked_fill(mask == 0, IGNORED_LABEL)
    return padded
