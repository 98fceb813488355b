"""Whether the answers stay the same: on the example, and on inputs varied from it."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch

from cpuaccel.checks.difference import Difference
from cpuaccel.model.output import Leaf, leaves
from cpuaccel.model.signature import MASK, Inputs, Signature, tensors_of

RIGHT, LEFT = "right padding", "left padding"
BOTH = "padding on both sides"
PADDINGS = frozenset({RIGHT, LEFT, BOTH})

IGNORED_LABEL = -100
"""What Transformers' losses pass over."""


@dataclass(frozen=True)
class Probe:
    """Inputs, and what the original answered to them.

    Attributes:
        name: ``example``, or the axes that were varied.
        inputs: the inputs by name.
        output: the original's output.
        reference: the output's tensors.
    """

    name: str
    inputs: Inputs
    output: object
    reference: list[Leaf]


@dataclass(frozen=True)
class Probes:
    """The example and its variations.

    Attributes:
        example: the inputs as they were given.
        varied: the variation of all axes at once where the original allows it, otherwise of each.
        single: makes the variations of one axis each, to find out which one is frozen.
        unprobed: the variations that the original refused.
    """

    example: Probe
    varied: tuple[Probe, ...]
    single: Callable[[], tuple[Probe, ...]]
    unprobed: tuple[str, ...]


def make_probes(original: Callable[[Mapping[str, object]], object], signature: Signature) -> Probes:
    """Run the original on the example inputs and on variations of them.

    The original is the judge of what may vary: a variation that it refuses is no probe.

    Args:
        original: calls the original with inputs by name.
        signature: holds the example inputs and the axes that may vary.
    """
    inputs = signature.inputs

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

    example = probe("example", inputs)
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


def compare(probe: Probe, candidate: object, original: Callable[..., object]) -> list[Difference]:
    """Hold an output against the original's; only real tokens count.

    Args:
        probe: the inputs and the original's output.
        candidate: the optimized model's output.
        original: knows, for audio, which output frames are real.

    Returns:
        One difference for each tensor. Infinite where shapes differ, where only one of the two is
        not a number, or where integers or booleans differ.
    """
    found = leaves(candidate)
    if [leaf.path for leaf in found] != [leaf.path for leaf in probe.reference]:
        return [Difference(probe.name, "output", float("inf"), float("inf"))]
    return [
        _difference(probe, mine, theirs.tensor, original)
        for mine, theirs in zip(probe.reference, found)
    ]


SERIAL = 2**15 - 1
"""Elements up to which torch sums in the calling thread."""


def has_nonfinite(tensors: Iterable[torch.Tensor]) -> bool:
    """Whether any floating tensor holds a NaN or an infinity."""
    return any(
        # A sum is finite only if every element is; only where it is not, look closer. In parts, for
        # to wake torch's threads after an engine that has threads of its own takes longer than it.
        tensor.is_floating_point()
        and not all(
            math.isfinite(part.sum().item()) or bool(part.isfinite().all())
            for part in _parts(tensor)
        )
        for tensor in tensors
    )


def _parts(tensor: torch.Tensor) -> Iterable[torch.Tensor]:
    if tensor.numel() <= SERIAL:
        return (tensor,)
    parts: tuple[torch.Tensor, ...] = tensor.reshape(-1).split(SERIAL)  # type: ignore[no-untyped-call]
    return parts


def _difference(
    probe: Probe, reference: Leaf, candidate: torch.Tensor, original: Callable[..., object]
) -> Difference:
    infinite = Difference(probe.name, reference.path, float("inf"), float("inf"))
    expected = reference.tensor
    if candidate.shape != expected.shape:
        return infinite
    mask = _real_tokens(probe.inputs, expected, original)
    if mask is not None:
        expected, candidate = expected[mask], candidate[mask]
    if expected.numel() == 0:
        return Difference(probe.name, reference.path, 0.0, 0.0)
    if not expected.is_floating_point():
        same = torch.equal(expected, candidate.to(expected.dtype))
        return Difference(probe.name, reference.path, 0.0, 0.0) if same else infinite
    expected, candidate = expected.double(), candidate.double()
    finite = expected.isfinite()
    if not torch.equal(finite, candidate.isfinite()):
        return infinite
    if not torch.equal(expected[~finite].nan_to_num(), candidate[~finite].nan_to_num()):
        return infinite
    expected, candidate = expected[finite], candidate[finite]
    if expected.numel() == 0:
        return Difference(probe.name, reference.path, 0.0, 0.0)
    absolute = float((expected - candidate).abs().max())
    magnitude = max(float(expected.abs().max()), torch.finfo(torch.float32).tiny)
    return Difference(probe.name, reference.path, absolute, absolute / magnitude)


def _real_tokens(
    inputs: Inputs, output: torch.Tensor, original: Callable[..., object]
) -> torch.Tensor | None:
    mask = inputs.get(MASK)
    if not isinstance(mask, torch.Tensor) or mask.dim() != 2 or output.dim() < 2:
        return None
    if output.shape[:2] == mask.shape:
        return mask.bool()
    # Audio: the mask counts samples, the output has frames; the model knows how they relate.
    frames = getattr(original, "_get_feature_vector_attention_mask", None)
    if frames is None or output.dim() < 3 or output.shape[0] != mask.shape[0]:
        return None
    found = frames(output.shape[1], mask)
    assert isinstance(found, torch.Tensor)
    return found.bool()


def _vary(signature: Signature, kinds: list[str]) -> Inputs:
    """Inputs of another batch size or length, or padded otherwise, made of the example's values."""
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
    else:  # shorter rather than longer: models have a longest length
        wanted = size - size // 3 if size > 2 else size + 1
    return tensor.index_select(axis, torch.arange(wanted) % size)


def _pad(tensors: dict[str, torch.Tensor], kinds: list[str]) -> dict[str, torch.Tensor]:
    """Pad all rows on the right, so that the longest is shorter too, or the longest on the left."""
    mask = tensors[MASK].clone()
    if mask.dim() != 2 or mask.shape[1] < 2:
        return {}
    third = max(1, mask.shape[1] // 3)
    if {RIGHT, BOTH} & {*kinds}:
        mask[0::2, -third:] = 0
        mask[1::2, -1:] = 0
    if {LEFT, BOTH} & {*kinds}:
        mask[mask.sum(1).argmax(), :third] = 0  # one that is shorter might not be padded at all
    emptied = mask.sum(1) == 0  # models and engines may say what they like of nothing
    mask[emptied] = tensors[MASK][emptied]
    padded = {MASK: mask}
    labels = tensors.get("labels")
    if labels is not None and labels.shape == mask.shape:
        padded["labels"] = labels.masked_fill(mask == 0, IGNORED_LABEL)
    return padded
