"""Letting the kernels compute the layers of an encoder-decoder's decoder."""

import ctypes
from collections.abc import Sequence

import torch
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache, EncoderDecoderCache

from cpuaccel_plugins.decoding.source_layers import bart, t5
from cpuaccel_plugins.decoding.source_layers.chain import SourceChain
from cpuaccel_plugins.decoding.source_layers.forward import BartForward, SourceForward, T5Forward

TOKENS = torch.tensor([[1, 2, 3]])
"""Tokens on which the layers are compared with their own code."""

SOURCE = 7
"""Length of the encoder's output then."""


def fuse_layers(model: torch.nn.Module, stepped: set[torch.nn.Module], library: ctypes.CDLL) -> int:
    """Let the kernels compute the layers that read an encoder's output.

    Args:
        model: whose linears the kernels compute already. Of other models nothing is changed.
        stepped: the modules that compute each token.
        library: the kernels.

    Returns:
        How many layers they compute from now on: each was compared with its own code.
    """
    assert isinstance(model, PreTrainedModel)
    fused: list[SourceForward] = []
    for layer in list(model.modules()) if model.config.is_encoder_decoder else ():
        if layer in stepped:
            made = _forward(layer, library)
            if made is not None:
                layer.forward = made  # type: ignore[assignment]
                fused.append(made)
    if not fused:
        return 0
    _compare(model, fused)
    for forward in fused:
        forward.finish_checking()
    agreeing = [forward for forward in fused if forward.agrees]
    if len(agreeing) == len(fused) and _are_all(model, fused):
        chain = SourceChain([forward.parts for forward in fused], library)
        for forward in fused:
            forward.chain = chain
    return len(agreeing)


def _forward(layer: torch.nn.Module, library: ctypes.CDLL) -> SourceForward | None:
    if parts := bart.find_parts(layer):
        return BartForward(layer, parts, library)
    if parts := t5.find_parts(layer):
        return T5Forward(layer, parts, library)
    return None


def _are_all(model: PreTrainedModel, fused: Sequence[SourceForward]) -> bool:
    """Whether these are the layers of one decoder, in order, and nothing is between them."""
    parents = [
        module
        for module in model.modules()
        if isinstance(module, torch.nn.ModuleList)
        and any(isinstance(vars(layer).get("forward"), SourceForward) for layer in module)
    ]
    return (
        len(parents) == 1
        and [vars(layer).get("forward") for layer in parents[0]] == [*fused]
        and [forward.parts.index for forward in fused] == [*range(len(fused))]
    )


def _compare(model: PreTrainedModel, fused: Sequence[SourceForward]) -> None:
    """Run a prompt and a step after it over some output of an encoder."""
    decoder = model.get_decoder()  # type: ignore[no-untyped-call]
    decoder = getattr(decoder, "decoder", decoder) if hasattr(decoder, "encoder") else decoder
    config = model.config.get_text_config(decoder=True)
    cache = EncoderDecoderCache(DynamicCache(config=config), DynamicCache(config=config))
    random = torch.Generator().manual_seed(0)
    size = 1, SOURCE, fused[0].parts.key.in_features
    source = torch.randn(size, generator=random).to(model.dtype)
    for ids in (TOKENS, TOKENS[:, :1]):
        decoder(input_ids=ids, encoder_hidden_states=source, past_key_values=cache, use_cache=True)
