"""Probes: the example inputs and variations of them, with the original's outputs."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import torch

from cpuaccel.checks.axis_groups import BATCH, LENGTH, AxisGroups
from cpuaccel.checks.size_guards import SizeGuards
from cpuaccel.model.output import Leaf, leaves
from cpuaccel.model.signature import (
    MASK,
    SOURCE_PADDING,
    Inputs,
    Signature,
    cloned,
    real_tokens,
    tensors_of,
    with_real_tokens,
)

RIGHT, LEFT = "right padding", "left padding"
BOTH = "padding on both sides"
PADDINGS = frozenset({RIGHT, LEFT, BOTH})

SHUFFLED = "shuffled values"
SHUFFLES = 4

IGNORED_LABEL = -100
"""The label that the losses of Transformers ignore."""

LONG = 32
"""Size from which an axis whose guards are known varies to a quarter instead of two thirds."""

Original = Callable[[Mapping[str, object]], object]


@dataclass(frozen=True, eq=False)
class Probe:
    """Inputs, and the output of the original for them."""

    name: str
    """``example``, or what was varied."""
    inputs: Inputs
    output: object
    reference: list[Leaf]
    """The tensors of the output."""
    written: Inputs = field(default_factory=dict)
    """The inputs that the original changed, as they were after the call."""
    sizes: Mapping[str, int] = field(default_factory=dict)
    """The sizes of the axis groups that have another one than the example's."""

    @property
    def varied(self) -> frozenset[str]:
        """The axis groups that have another size than the example's."""
        return frozenset(self.sizes)

    @property
    def has_one(self) -> bool:
        """Whether only one size varied, and is one."""
        return [*self.sizes.values()] == [1]


@dataclass(frozen=True)
class Probes:
    """The example and its variations.

    Attributes:
        example: the example inputs.
        varied: all sizes varied at once if the original allows that: smaller ones, larger ones.
        single: runs the variations of one kind each, to find out which size is frozen.
        unprobed: the variations on which the original raised.
        shuffled: runs variations with the example's values at other places.
    """

    example: Probe
    varied: tuple[Probe, ...]
    single: Callable[[], tuple[Probe, ...]]
    unprobed: tuple[str, ...]
    shuffled: Callable[[], tuple[Probe, ...]]


def run_probe(
    original: Original, name: str, inputs: Inputs, sizes: Mapping[str, int] = MappingProxyType({})
) -> Probe:
    """Run the original on a copy of inputs, which it may change."""
    used = cloned(inputs)
    output = original(used)
    written: Inputs = {
        name: tensor
        for name, tensor in tensors_of(used).items()
        # Tensors made in inference mode have no version.
        if (tensor.is_inference() or tensor._version)
        and not same_values(tensor, tensors_of(inputs)[name])
    }
    return Probe(name, inputs, output, leaves(output), written, sizes)


def same_values(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors of one shape are equal; NaN equals NaN."""
    return torch.equal(one.nan_to_num(), other.nan_to_num())


def make_probes(
    original: Original,
    signature: Signature,
    guards: SizeGuards | None = None,
    example: Probe | None = None,
) -> Probes:
    """Run the original on the example inputs and on variations of them.

    The original decides what may vary: a variation on which it raises is not a probe.

    Args:
        original: calls the original.
        signature: the example inputs.
        guards: with them every axis varies that leaves the path of the Python code as it is, to
            smaller and to larger sizes; without them batch and length vary to smaller sizes.
        example: the original's output on the example, if it is known already.
    """
    groups = AxisGroups.from_signature(signature)
    smaller, larger = _smaller(groups, guards), _larger(groups, guards)
    paddings = [RIGHT, LEFT] if signature.masked else []

    def attempt(name: str, wanted: Mapping[str, int], paddings: list[str]) -> Probe | None:
        if guards is not None and guards.violated({**groups.example, **wanted}):
            return None
        inputs = groups.resized(signature.inputs, wanted)
        inputs |= _pad(inputs, paddings) if paddings else {}
        try:
            return run_probe(original, name, inputs, wanted)
        except Exception:
            refused.append(name)
            return None

    refused: list[str] = []
    example = example or run_probe(original, "example", signature.inputs)
    kinds = [*smaller, *paddings]
    varied: list[Probe | None] = []
    if kinds:
        varied.append(attempt("+".join(kinds), smaller, paddings))
        if varied[0] is None and len(kinds) > 1:
            refused.clear()
            single = [attempt(name, {name: size}, []) for name, size in smaller.items()]
            accepted = {n: s for p in single if p is not None for n, s in p.sizes.items()}
            larger = {n: s for n, s in larger.items() if n in accepted or n == BATCH}
            smaller = accepted
            alone = [attempt(kind, {}, [kind]) for kind in paddings]
            paddings = [kind for kind, probe in zip(paddings, alone) if probe is not None]
            together = attempt("+".join([*smaller, *paddings]), smaller, paddings)
            varied = [together] if together is not None else [*single, *alone]
    if larger:
        together = attempt(_named(larger), larger, [])
        varied.append(together)
        if together is None and len(larger) > 1:
            varied += [attempt(_named({n: s}), {n: s}, []) for n, s in larger.items()]

    if guards is not None and LENGTH in smaller:
        varied.append(attempt(_named({LENGTH: 1}), {LENGTH: 1}, []))

    def run_single() -> tuple[Probe, ...]:
        probes = [attempt(name, {name: size}, []) for name, size in smaller.items()]
        probes += [attempt(_named({n: s}), {n: s}, []) for n, s in larger.items()]
        probes += [probe for probe in varied if probe is not None and probe.has_one]
        probes += [attempt(kind, {}, [kind]) for kind in ([*paddings, BOTH] if paddings else [])]
        return tuple(probe for probe in probes if probe is not None)

    def run_shuffled() -> tuple[Probe, ...]:
        random = torch.Generator().manual_seed(0)
        inputs = [_shuffle(signature.inputs, random) for _ in range(SHUFFLES)]
        try:
            return tuple(run_probe(original, SHUFFLED, shuffled) for shuffled in inputs)
        except Exception:  # the original requires an order of some input
            return ()

    varied_probes = tuple(probe for probe in varied if probe is not None)
    return Probes(example, varied_probes, run_single, tuple(refused), run_shuffled)


def _shuffle(inputs: Inputs, random: torch.Generator) -> Inputs:
    """Permute the values of each tensor; padding masks and others of Booleans stay."""
    shuffled = {**inputs}
    for name, tensor in tensors_of(inputs).items():
        if tensor.dtype != torch.bool and name not in (MASK, SOURCE_PADDING):
            order = torch.randperm(tensor.numel(), generator=random)
            shuffled[name] = tensor.flatten()[order].view(tensor.shape)
    return shuffled


def _named(sizes: Mapping[str, int]) -> str:
    return "+".join(f"{name}={size}" for name, size in sizes.items())


def _smaller(groups: AxisGroups, guards: SizeGuards | None) -> dict[str, int]:
    """Choose another size for each group that may vary; larger ones where none is smaller."""
    chosen: dict[str, int] = {}
    for group in groups:
        n = group.size
        if group.name == BATCH:
            candidates = [3 if n == 2 else 2, 4]
        elif (guards is None and group.name != LENGTH) or n < 1:
            continue
        else:
            candidates = [n - n // 3 if n > 2 else n + 1, n // 2, n - 1, n + 1, 2 * n]
            if guards is not None and n >= LONG:  # calls of the original are most of a build's time
                candidates.insert(0, n // 4)
        _choose(group.name, candidates, chosen, groups, guards)
    return chosen


def _larger(groups: AxisGroups, guards: SizeGuards | None) -> dict[str, int]:
    """Choose a larger size for each group, and one row for a batch of several."""
    chosen: dict[str, int] = {}
    for group in groups if guards is not None else ():
        n = group.size
        if group.name == BATCH:
            candidates = [1]
        else:  # not much larger, for the same reason
            candidates = [n + n // 8 + 1, n + n // 2, 2 * n, n + 1] if n > 1 else []
        _choose(group.name, candidates, chosen, groups, guards)
    return chosen


def _choose(
    name: str,
    candidates: Iterable[int],
    chosen: dict[str, int],
    groups: AxisGroups,
    guards: SizeGuards | None,
) -> None:
    """Choose the first size that leaves the path of the Python code as it is."""
    sizes = groups.example | chosen
    for size in candidates:
        if size == sizes[name] or size < 1:
            continue
        if guards is None or not guards.violated({**sizes, name: size}):
            chosen[name] = size
            return


def _pad(inputs: Inputs, kinds: list[str]) -> Inputs:
    """Pad every row on the right, including the longest one, or the longest row on the left."""
    known = real_tokens(inputs)
    if known is None or known.shape[1] < 2:
        return {}
    real = known.clone()
    third = max(1, real.shape[1] // 3)
    if {RIGHT, BOTH} & {*kinds}:
        real[0::2, -third:] = False
        real[1::2, -1:] = False
    if {LEFT, BOTH} & {*kinds}:
        real[real.sum(1).argmax(), :third] = False  # a shorter row might not reach these columns
    emptied = real.sum(1) == 0  # the output of an empty row is undefined
    real[emptied] = known[emptied]
    padded = with_real_tokens(inputs, real)
    labels = tensors_of(inputs).get("labels")
    if labels is not None and labels.shape == real.shape:
        padded["labels"] = labels.masked_fill(~real, IGNORED_LABEL)
    return padded
