"""Which linears to leave in float, found by computing with all the others in 8 bits."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import linear
from torch.overrides import TorchFunctionMode

import cpuaccel
from cpuaccel import CpuaccelError
from cpuaccel_plugins.int8.arithmetic import Channels, multiply, quantize, quantize_weight
from cpuaccel_plugins.int8.options import Kind
from cpuaccel_plugins.int8.spread import Matrix, Spread, matrix_of, spreads

MASK = "attention_mask"

Harm = Callable[[Callable[..., object]], float]
"""How bad a model's answers are: is called with the model, and larger is worse."""


def sensitive_linears(
    model: torch.nn.Module,
    batches: Iterable[Mapping[str, object]],
    most: float,
    harm: Harm | None = None,
) -> tuple[str, ...]:
    """Name the linears to leave in float so that the harm done by 8 bits stays within bounds.

    Example::

        names = sensitive_linears(model, batches, most=0.02)
        fast = cpuaccel.optimize(model, [cpuaccel.Step("int8", float_names=names)])

    Each linear alone is computed in 8 bits first. Those that do the greatest harm are then left in
    float, as few as are enough. That takes as many passes over the batches as there are linears,
    and a few more.

    Args:
        model: as it will be given to ``optimize``.
        batches: inputs by name.
        most: the harm to accept at most.
        harm: called with what is called like the model; without it, the largest difference of an
            output from the original's on any batch, relative to the output's largest magnitude,
            over real tokens; batches then have the same inputs.

    Returns:
        Names as ``model.named_modules()`` has them, the greatest harm first; empty where all may
        be in 8 bits. Heads, which ``int8`` leaves in float by itself, are not among them.

    Raises:
        CpuaccelError: there is no batch, or the harm is too great with all linears in float.
    """
    from cpuaccel_plugins.int8.candidates import (
        linears_of,  # what imports torch.export is imported only here
    )

    held = [dict(batch) for batch in batches]
    if not held:
        raise CpuaccelError("no batches were given to compare answers on. Pass one at least")
    eager = cpuaccel.shared_copy(model).eval()
    signature = cpuaccel.Signature.from_inputs(eager, held[0])
    with torch.no_grad():
        candidates = linears_of(eager, signature, float_kinds=(Kind.HEAD,))
        spread = spreads(lambda: signature.call(eager, signature.inputs))
        if harm is None:
            flat, harm = difference(eager, held, signature)
            return least_in_float(eager, candidates, most, harm, spread, called=flat)
        return least_in_float(eager, candidates, most, harm, spread)


def least_in_float(
    model: torch.nn.Module,
    candidates: Sequence[str],
    most: float,
    harm: Harm,
    spread: Mapping[Matrix, Spread],
    called: Callable[..., object] | None = None,
) -> tuple[str, ...]:
    """The same, of these linears, with activations spread by what was seen.

    Where ``called`` is given, ``harm`` is called with its like: something that calls the model.
    """
    quantized = _Quantized(model, spread, called or model)

    def harm_of(names: Iterable[str]) -> float:
        quantized.names = frozenset(names)
        return harm(quantized)

    if harm_of(candidates) <= most:
        return ()
    if not harm_of(()) <= most:
        raise CpuaccelError(
            f"a harm of {most:g} at most was asked for, but with all linears in float it is "
            f"{harm_of(()):.3g} already. Allow more, or see whether harm measures what it should"
        )
    alone = {name: harm_of([name]) for name in candidates}
    worst = sorted(candidates, key=alone.__getitem__, reverse=True)
    few, enough = 0, len(worst)
    while enough - few > 1:
        middle = (few + enough) // 2
        if harm_of(worst[middle:]) <= most:
            enough = middle
        else:
            few = middle
    return tuple(worst[:enough])


def difference(
    model: torch.nn.Module, batches: Sequence[Mapping[str, object]], signature: cpuaccel.Signature
) -> tuple[torch.nn.Module, Harm]:
    """The largest relative difference from a model's answers to these batches.

    Returns:
        The model, called with tensors and returning a tuple of tensors, and the harm done to it.
    """
    flat = cpuaccel.flatten(model, signature.tensors, signature.constants)
    given = [{n: t for n, t in batch.items() if n in signature.tensors} for batch in batches]
    wanted = [flat(**inputs) for inputs in given]

    def harm(candidate: Callable[..., object]) -> float:
        worst = 0.0
        for inputs, expected in zip(given, wanted):
            answer = candidate(**inputs)
            assert isinstance(answer, tuple)
            for mine, theirs in zip(answer, expected, strict=True):
                worst = max(worst, _relative(mine, theirs, inputs.get(MASK)))
        return worst

    return flat, harm


def _relative(found: torch.Tensor, wanted: torch.Tensor, mask: object) -> float:
    if not wanted.is_floating_point():
        return 0.0
    if isinstance(mask, torch.Tensor) and mask.dim() == 2 and wanted.shape[:2] == mask.shape:
        found, wanted = found[mask.bool()], wanted[mask.bool()]
    largest = max(float(wanted.abs().max()), torch.finfo(torch.float32).tiny)
    off = float((found.float() - wanted.float()).abs().max()) / largest
    return math.inf if math.isnan(off) else off


class _Quantized:
    """A model of which some linears are computed in 8 bits, as ``int8`` does."""

    def __init__(
        self,
        model: torch.nn.Module,
        spread: Mapping[Matrix, Spread],
        called: Callable[..., object],
    ) -> None:
        self._called = called
        self._spread = spread
        self._weights = {
            name.removesuffix(".weight"): parameter
            for name, parameter in model.named_parameters(remove_duplicate=False)
        }
        self._made: dict[str, _Linear] = {}
        self.names: frozenset[str] = frozenset()

    def __call__(self, *args: object, **kwargs: object) -> object:
        linears = {matrix_of(self._weights[name]): self._linear(name) for name in self.names}
        with _Replacing(linears), torch.no_grad():
            return self._called(*args, **kwargs)

    def _linear(self, name: str) -> "_Linear":
        if name not in self._made:
            weight = self._weights[name].detach()
            spread = self._spread.get(matrix_of(weight)) or Spread.none(weight.shape[1])
            self._made[name] = _Linear(spread, *quantize_weight(weight, None, spread))
        return self._made[name]


@dataclass(frozen=True)
class _Linear:
    spread: Spread
    weight: torch.Tensor
    channels: Channels

    def __call__(self, given: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        eighth = quantize(given, self.spread)
        product = multiply(eighth, self.weight, self.channels, given.dtype, "none", "")
        return product if bias is None else product + bias


class _Replacing(TorchFunctionMode):
    def __init__(self, linears: Mapping[Matrix, _Linear]) -> None:
        super().__init__()
        self._linears = linears

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        if func is linear:
            given, weight, bias = (*args, None)[:3]
            assert isinstance(given, torch.Tensor)
            assert isinstance(weight, torch.Tensor)
            replacement = self._linears.get(matrix_of(weight))
            if replacement is not None:
                assert bias is None or isinstance(bias, torch.Tensor)
                return replacement(given, bias)
        return func(*args, **(kwargs or {}))
