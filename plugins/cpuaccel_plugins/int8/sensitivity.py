"""Which linears to leave in float: the most sensitive to 8 bits."""

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

import torch

import cpuaccel
from cpuaccel import CpuaccelError
from cpuaccel_plugins.int8.arithmetic import int8_linear, quantize, quantize_weight
from cpuaccel_plugins.int8.linear_hook import LinearHook
from cpuaccel_plugins.int8.options import Kind
from cpuaccel_plugins.int8.outliers import OutlierSplit, WeightKey, outlier_splits, weight_key

MASK = "attention_mask"

_Linear: TypeAlias = Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor]

Harm: TypeAlias = Callable[[Callable[..., object]], float]
"""Measures the error of a model, which it calls; larger is worse."""


def sensitive_linears(
    model: torch.nn.Module,
    batches: Iterable[Mapping[str, object]],
    most: float,
    harm: Harm | None = None,
) -> tuple[str, ...]:
    """Name the linears to leave in float so that the error of 8 bits stays within a bound.

    Example:

        names = sensitive_linears(model, batches, most=0.02)
        fast = cpuaccel.optimize(model, [cpuaccel.Step("int8", float_names=names)])

    Each linear alone is computed in 8 bits first. Those with the largest errors are then left in
    float, as few as are enough. That takes as many passes over the batches as there are linears,
    and a few more.

    Args:
        model: as it will be passed to ``optimize``.
        batches: inputs by name.
        most: the largest error to accept.
        harm: measures the error; called with a callable of the model's parameters. Default: the
            largest difference of an output from the original's on any batch, relative to the
            output's largest magnitude, over real tokens; batches must then have the same inputs.

    Returns:
        Names from ``model.named_modules()``, the most sensitive first; empty if all linears may
        be in 8 bits. Heads, which ``int8`` leaves in float by default, are not among them.

    Raises:
        CpuaccelError: there is no batch, or the error is too large with all linears in float.
    """
    from cpuaccel_plugins.int8.selection import linears_of  # fails with an older torch

    all_inputs = [dict(batch) for batch in batches]
    if not all_inputs:
        raise CpuaccelError("batches is empty. Pass at least one batch to compare outputs on")
    eager = cpuaccel.shared_copy(model).eval()
    signature = cpuaccel.Signature.from_inputs(eager, all_inputs[0])
    with torch.no_grad():
        candidates = linears_of(eager, signature, float_kinds=(Kind.HEAD,))
        splits = outlier_splits(lambda: signature.call(eager, signature.inputs))
        if harm is None:
            flat, harm = output_difference(eager, all_inputs, signature)
            return fewest_in_float(eager, candidates, most, harm, splits, called=flat)
        return fewest_in_float(eager, candidates, most, harm, splits)


def fewest_in_float(
    model: torch.nn.Module,
    candidates: Sequence[str],
    most: float,
    harm: Harm,
    splits: Mapping[WeightKey, OutlierSplit],
    called: Callable[..., object] | None = None,
) -> tuple[str, ...]:
    """Find the fewest of a model's linears to leave in float, see ``sensitive_linears``.

    ``harm`` gets a variant of ``called``, a callable that calls the model; by default the model.
    """
    weights = {
        name.removesuffix(".weight"): parameter.detach()
        for name, parameter in model.named_parameters(remove_duplicate=False)
    }

    @functools.cache
    def linear(name: str) -> _Linear:
        weight = weights[name]
        split = splits.get(weight_key(weight)) or OutlierSplit.none(weight.shape[1])
        return _int8_linear(weight, split)

    def error(names: Iterable[str]) -> float:
        linears = {weight_key(weights[name]): linear(name) for name in names}
        return harm(_partly_in_int8(called or model, linears))

    if error(candidates) <= most:
        return ()
    if not error(()) <= most:
        raise CpuaccelError(
            f"the error must be <= {most:g}, but is {error(()):.3g} with all linears in float. "
            "Accept a larger error, or check how it is measured"
        )
    alone = {name: error([name]) for name in candidates}
    worst = sorted(candidates, key=alone.__getitem__, reverse=True)
    too_few, enough = 0, len(worst)
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        if error(worst[middle:]) <= most:
            enough = middle
        else:
            too_few = middle
    return tuple(worst[:enough])


def output_difference(
    model: torch.nn.Module, batches: Sequence[Mapping[str, object]], signature: cpuaccel.Signature
) -> tuple[torch.nn.Module, Harm]:
    """Return the model on tensors, and a measure of the relative difference from its outputs."""
    flat = cpuaccel.flatten(model, signature.tensors, signature.constants)
    tensors = [{n: t for n, t in batch.items() if n in signature.tensors} for batch in batches]
    expected = [flat(**inputs) for inputs in tensors]

    def harm(candidate: Callable[..., object]) -> float:
        worst = 0.0
        for inputs, originals in zip(tensors, expected):
            outputs = candidate(**inputs)
            assert isinstance(outputs, tuple)
            for output, original in zip(outputs, originals, strict=True):
                worst = max(worst, _relative_difference(output, original, inputs.get(MASK)))
        return worst

    return flat, harm


def _relative_difference(output: torch.Tensor, original: torch.Tensor, mask: object) -> float:
    if not original.is_floating_point():
        return 0.0
    if isinstance(mask, torch.Tensor) and mask.dim() == 2 and original.shape[:2] == mask.shape:
        output, original = output[mask.bool()], original[mask.bool()]
    largest = max(float(original.abs().max()), torch.finfo(torch.float32).tiny)
    difference = float((output.float() - original.float()).abs().max()) / largest
    return math.inf if math.isnan(difference) else difference


def _partly_in_int8(
    model: Callable[..., object], linears: Mapping[WeightKey, _Linear]
) -> Callable[..., object]:
    """A model that computes these linears in 8 bits, as ``int8`` does."""

    def compute(
        inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor | None:
        linear = linears.get(weight_key(weight))
        return None if linear is None else linear(inputs, bias)

    def call(*args: object, **kwargs: object) -> object:
        with LinearHook(compute), torch.no_grad():
            return model(*args, **kwargs)

    return call


def _int8_linear(weight: torch.Tensor, split: OutlierSplit) -> _Linear:
    packed, channels = quantize_weight(weight, None, split)

    def linear(inputs: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        quantized = quantize(inputs, split)
        product = int8_linear(quantized, packed, channels, inputs.dtype, "none", "")
        return product if bias is None else product + bias

    return linear
