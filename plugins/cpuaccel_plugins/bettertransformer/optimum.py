"""Optimum's own BetterTransformer, for Transformers before 4.49."""

import functools
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from optimum.bettertransformer import BetterTransformer, transformation

import cpuaccel
from cpuaccel import Applied, Context
from cpuaccel_plugins.common.eager_attention import with_eager_attention
from cpuaccel_plugins.common.engine_errors import engine_errors, leave_out


def apply(model: torch.nn.Module, context: Context) -> Applied:
    """Replace the encoder's layers by optimum's.

    Raises:
        BackendError: optimum knows no replacement for this model's layers, or refuses it.
    """
    copied = model if context.inplace else cpuaccel.shared_copy(model)
    remedy = leave_out("bettertransformer")
    with _quiet(), engine_errors("BetterTransformer.transform", model, remedy):
        transformed = BetterTransformer.transform(with_eager_attention(copied))
    layers = [
        module
        for module in transformed.modules()
        if type(module).__module__.startswith("optimum.bettertransformer.models")
    ]
    for layer in layers:
        if getattr(layer, "is_last_layer", False):
            # Not a hook: before torch 2.0 hooks see no keyword arguments, as DistilBERT's mask is.
            layer.forward = functools.partial(_padded_back, layer.forward)
    return Applied(
        transformed.eval(), evidence={"implementation": "optimum", "layers": len(layers)}
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without optimum's notes on its deprecation and on training, and torch's on nested tensors."""
    transformation.logger.addFilter(_nothing)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Told once a process, on the first nested tensor: which would be in a user's call.
            torch._nested_tensor_from_mask(torch.zeros(1, 1, 1), torch.ones(1, 1, dtype=torch.bool))
            yield
    finally:
        transformation.logger.removeFilter(_nothing)


def _nothing(record: logging.LogRecord) -> bool:
    return False


def _padded_back(
    forward: Callable[..., tuple[torch.Tensor, ...]], *args: object, **kwargs: object
) -> tuple[torch.Tensor, ...]:
    """Bring the output, which optimum cuts to the longest sequence, back to the input's length."""
    output = forward(*args, **kwargs)
    masks = [*args[1:2], kwargs.get("attention_mask"), kwargs.get("attn_mask")]
    for mask in masks:
        if isinstance(mask, torch.Tensor):
            missing = mask.shape[-1] - output[0].shape[1]
            return (torch.nn.functional.pad(output[0], (0, 0, 0, missing)), *output[1:])
    return output
