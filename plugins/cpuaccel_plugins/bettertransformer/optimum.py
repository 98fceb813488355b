"""Optimum's BetterTransformer, for Transformers before 4.49."""

import functools
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from optimum.bettertransformer import BetterTransformer, transformation

import cpuaccel
from cpuaccel import Applied, BackendError, Context
from cpuaccel_plugins.bettertransformer.requested import requests
from cpuaccel_plugins.common.eager_attention import with_eager_attention
from cpuaccel_plugins.common.engine_errors import engine_errors, leave_out

UNSUPPORTED = {
    "output_hidden_states": "return hidden states without padding, as nested tensors",
    "output_attentions": "return no attention weights",
}
"""What a call may ask for, and what optimum's layers do instead."""


def apply(model: torch.nn.Module, context: Context) -> Applied:
    """Replace the encoder's layers by optimum's."""
    for name, instead in UNSUPPORTED.items():
        if requests(model, context.signature, name):
            raise BackendError(
                f"{name} is requested, and optimum's layers {instead}",
                f"Leave out {name}, or bettertransformer",
            )
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
            # Not a hook: before torch 2.0 hooks get no keyword arguments.
            layer.forward = functools.partial(_restore_length, layer.forward)
    return Applied(
        transformed.eval(), evidence={"implementation": "optimum", "layers": len(layers)}
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence optimum's log messages, and torch's warning on nested tensors."""
    transformation.logger.addFilter(_drop)
    try:
        with warnings.catch_warnings(action="ignore"):
            # torch warns once per process, on the first nested tensor: trigger it here.
            torch._nested_tensor_from_mask(torch.zeros(1, 1, 1), torch.ones(1, 1, dtype=torch.bool))
            yield
    finally:
        transformation.logger.removeFilter(_drop)


def _drop(record: logging.LogRecord) -> bool:
    return False


def _restore_length(
    forward: Callable[..., tuple[torch.Tensor, ...]], *args: object, **kwargs: object
) -> tuple[torch.Tensor, ...]:
    """Pad the output, which optimum cuts to the longest sequence, to the input's length."""
    output = forward(*args, **kwargs)
    masks = [*args[1:2], kwargs.get("attention_mask"), kwargs.get("attn_mask")]
    for mask in masks:
        if isinstance(mask, torch.Tensor):
            missing = mask.shape[-1] - output[0].shape[1]
            return (torch.nn.functional.pad(output[0], (0, 0, 0, missing)), *output[1:])
    return output
