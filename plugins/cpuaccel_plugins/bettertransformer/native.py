"""BetterTransformer through the attention interface of Transformers 5."""

import torch
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

import cpuaccel
from cpuaccel import Applied, BackendError, Context, describe_error
from cpuaccel_plugins.bettertransformer import attention, hidden_states, packing
from cpuaccel_plugins.bettertransformer.requested import requests
from cpuaccel_plugins.common.engine_errors import leave_out

LEAVE_OUT = leave_out("bettertransformer")


def apply(model: torch.nn.Module, context: Context) -> Applied:
    """Replace the attention function, and remove padding around the encoder."""
    if not hidden_states.CAN_BE_UNPACKED and requests(
        model, context.signature, "output_hidden_states"
    ):
        raise BackendError(
            "the hidden states inside the encoder are packed, without padding, and this version "
            "of Transformers collects them there",
            "Leave out output_hidden_states, or update Transformers",
        )
    eager = getattr(model.config, "_attn_implementation", None) == "eager"
    if eager and requests(model, context.signature, "output_attentions"):
        raise BackendError(
            "output_attentions is requested, and fused attention computes no attention weights",
            "Leave out output_attentions, or bettertransformer",
        )
    AttentionInterface.register(attention.NAME, attention.attention)
    AttentionMaskInterface.register(attention.NAME, attention.mask)
    transformed = model if context.inplace else cpuaccel.shared_copy(model)
    _route_attention(transformed)
    with attention.recording() as callers, torch.no_grad():
        context.signature.call(transformed, context.signature.inputs)
    if not callers:
        raise BackendError(
            f"{type(model).__name__} does not use Transformers' attention interface",
            LEAVE_OUT,
        )
    attention_ids = {id(module) for module in callers}
    containers = _encoders(transformed, attention_ids)
    for container, layers in containers:
        packing.install(container, layers)
    return Applied(
        transformed,
        evidence={
            "implementation": "native",
            "attention_modules": len(attention_ids),
            "packing_layers": sum(len(layers) for _, layers in containers),
        },
    )


def _route_attention(model: torch.nn.Module) -> None:
    try:
        model.set_attn_implementation(attention.NAME)  # type: ignore[operator]
    except (AttributeError, ValueError, ImportError) as error:
        raise BackendError(
            f"{type(model).__name__} has no choice of attention: {describe_error(error)}", LEAVE_OUT
        ) from error


def _encoders(
    model: torch.nn.Module, attention_ids: set[int]
) -> list[tuple[torch.nn.Module, list[torch.nn.Module]]]:
    """Return the modules that run a list of layers with attention, each with these layers."""
    containers: dict[str, list[torch.nn.Module]] = {}
    modules = dict(model.named_modules())
    for path, module in modules.items():
        if id(module) not in attention_ids:
            continue
        parts = path.split(".")
        prefixes = [".".join(parts[:end]) for end in range(len(parts))]
        lists = [p for p in prefixes if isinstance(modules.get(p), torch.nn.ModuleList)]
        if lists:  # the outermost one: ALBERT nests lists
            layers = containers.setdefault(lists[0].rpartition(".")[0], [])
            layer = modules[".".join(parts[: len(lists[0].split(".")) + 1])]
            if layer not in layers:
                layers.append(layer)
    return [(modules[container], layers) for container, layers in containers.items()]
