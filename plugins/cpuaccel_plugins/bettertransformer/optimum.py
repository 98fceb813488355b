"""Optimum's own BetterTransformer, for Transformers before 4.49."""

import warnings

import torch
from optimum.bettertransformer import BetterTransformer

import cpuaccel
from cpuaccel import Applied, BackendError, Context

from ..eager_attention import with_eager_attention


def apply(model: torch.nn.Module, context: Context) -> Applied:
    """Replace the encoder's layers by optimum's.

    Raises:
        BackendError: optimum knows no replacement for this model's layers, or refuses it.
    """
    copied = model if context.inplace else cpuaccel.shared_copy(model)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # optimum warns of its own deprecation
            transformed = BetterTransformer.transform(with_eager_attention(copied))
    except (NotImplementedError, ValueError) as error:
        raise BackendError(
            f"optimum's BetterTransformer refuses {type(model).__name__}: "
            f"{str(error).strip().splitlines()[0]}",
            "Leave bettertransformer out for this model",
        ) from error
    layers = [
        module
        for module in transformed.modules()
        if type(module).__module__.startswith("optimum.bettertransformer.models")
    ]
    for layer in layers:
        if getattr(layer, "is_last_layer", False):
            layer.register_forward_hook(_pad_back, with_kwargs=True)
    return Applied(
        transformed.eval(), evidence={"implementation": "optimum", "layers": len(layers)}
    )


def _pad_back(
    layer: torch.nn.Module,
    args: tuple[object, ...],
    kwargs: dict[str, object],
    output: tuple[torch.Tensor, ...],
) -> tuple[torch.Tensor, ...]:
    """Bring the output, which optimum cuts to the longest sequence, back to the input's length."""
    masks = [v for v in (*args[1:2], kwargs.get("attention_mask")) if isinstance(v, torch.Tensor)]
    if not masks:
        return output
    missing = masks[0].shape[-1] - output[0].shape[1]
    return (torch.nn.functional.pad(output[0], (0, 0, 0, missing)), *output[1:])
