"""The attention and mask functions that Transformers calls through its interfaces."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers.masking_utils import bidirectional_mask_function, causal_mask_function, sdpa_mask

from cpuaccel import BackendError
from cpuaccel_plugins.bettertransformer import packing
from cpuaccel_plugins.bettertransformer.packing import PaddingMask, Pattern, Span, local_mask
from cpuaccel_plugins.common.engine_errors import leave_out
from cpuaccel_plugins.common.padding_markers import exporting

NAME = "cpuaccel"
"""Name of both functions in Transformers' interfaces."""


_recorder: ContextVar[list[torch.nn.Module] | None] = ContextVar("recorder", default=None)


@contextmanager
def recording() -> Iterator[list[torch.nn.Module]]:
    """Record the modules that call the attention function, and raise where one is unsupported."""
    callers: list[torch.nn.Module] = []
    token = _recorder.set(callers)
    try:
        yield callers
    finally:
        _recorder.reset(token)


def mask(
    *,
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int = 0,
    kv_offset: int = 0,
    mask_function: Callable[..., Any],
    attention_mask: torch.Tensor | None = None,
    use_vmap: bool = False,
    device: torch.device | None = None,
    **kwargs: object,
) -> PaddingMask | torch.Tensor | None:
    """Create the attention mask for the layers; see transformers.masking_utils."""
    if use_vmap or q_length != kv_length or mask_function is causal_mask_function:
        return sdpa_mask(
            batch_size=batch_size,
            q_length=q_length,
            kv_length=kv_length,
            q_offset=q_offset,
            kv_offset=kv_offset,
            mask_function=mask_function,
            attention_mask=attention_mask,
            allow_is_causal_skip=False,
            use_vmap=use_vmap,
            device=device or torch.device("cpu"),
        )
    pattern = None if mask_function is bidirectional_mask_function else mask_function
    # A trace must support padded batches, even if the example has no padding.
    traced = torch.jit.is_tracing() or exporting()
    if attention_mask is not None and not traced and bool(attention_mask.all()):
        attention_mask = None
    if attention_mask is None and pattern is None:
        return None
    return PaddingMask(attention_mask, q_length, pattern)


def attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: PaddingMask | torch.Tensor | None,
    scaling: float | None = None,
    **kwargs: object,
) -> tuple[torch.Tensor, None]:
    """Compute attention; see transformers' AttentionInterface. Packed tokens have batch 1."""
    # query, key, value: (batch, heads, tokens, size); result: (batch, tokens, heads, size)
    recorder = _recorder.get()
    if recorder is not None:
        _check_supported(module, query, key, attention_mask, kwargs)
        recorder.append(module)
    current = packing.current.get()
    pattern = attention_mask.pattern if isinstance(attention_mask, PaddingMask) else None
    if current is not None and current.counts is not None:
        scale = query.shape[-1] ** -0.5 if scaling is None else float(scaling)
        if not torch.jit.is_tracing():
            return _attend_packed(query, key, value, current.spans, scale, pattern), None
        if pattern is not None:
            raise BackendError(
                "windowed attention without padding can't be traced",
                "Leave jit or bettertransformer out for this model",
            )
        script: Callable[..., torch.Tensor] = torch.jit.script(_attend_script)
        return script(query, key, value, current.counts, current.skips, scale), None
    dense = attention_mask.dense() if isinstance(attention_mask, PaddingMask) else attention_mask
    attended = scaled_dot_product_attention(query, key, value, dense, scale=scaling)
    return attended.transpose(1, 2).contiguous(), None


def _attend_packed(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    spans: list[Span],
    scale: float,
    pattern: Pattern | None,
) -> torch.Tensor:
    attended = torch.empty_like(query.transpose(1, 2), memory_format=torch.contiguous_format)
    start = 0
    for tokens, skip, positions in spans:
        end = start + tokens
        attended[:, start:end] = scaled_dot_product_attention(
            query[:, :, start:end],
            key[:, :, start + skip : end],
            value[:, :, start + skip : end],
            None if pattern is None else local_mask(pattern, positions)[:, skip:],
            scale=scale,
        ).transpose(1, 2)
        start = end
    return attended


def _attend_script(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    counts: torch.Tensor,
    skips: torch.Tensor,
    scale: float,
) -> torch.Tensor:
    # _attend_packed in TorchScript: a trace keeps its loop.
    attended = torch.empty_like(query.transpose(1, 2), memory_format=torch.contiguous_format)
    start = 0
    for index in range(counts.size(0)):
        end = start + int(counts[index].item())
        first = start + int(skips[index].item())
        attended[:, start:end] = scaled_dot_product_attention(
            query[:, :, start:end], key[:, :, first:end], value[:, :, first:end], scale=scale
        ).transpose(1, 2)
        start = end
    return attended


def _check_supported(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    attention_mask: PaddingMask | torch.Tensor | None,
    kwargs: dict[str, object],
) -> None:
    """Raise a ``BackendError`` where this attention would compute something else."""
    unsupported = {
        "is causal": kwargs.get("is_causal") or getattr(module, "is_causal", False),
        "attends to another sequence": query.shape[2] != key.shape[2],
        "shares keys between heads": query.shape[1] != key.shape[1],
        "has a mask beyond padding and windows": isinstance(attention_mask, torch.Tensor),
        "adds a position bias to its scores": kwargs.get("position_bias") is not None,
        "caps its scores": kwargs.get("softcap") is not None,
    }
    if reasons := [reason for reason, applies in unsupported.items() if applies]:
        raise BackendError(
            f"{type(module).__name__} {reasons[0]}, which bettertransformer does not support",
            leave_out("bettertransformer"),
        )
