"""Decoder layers of Llama's kind, computed by three kernels where rows are few.

The layers of the architectures in ``ARCHITECTURES`` have the same parts: norms of root mean square,
queries and keys turned by their position, a gated feed-forward network. A layer of these is
computed by the kernels if both give the same results; others run as they are.
"""

import ctypes
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

import torch
from transformers import activations
from transformers.cache_utils import Cache, DynamicLayer

from cpuaccel_plugins.decoding.linear import MOST_ROWS, FewRowsLinear
from cpuaccel_plugins.decoding.structures import (
    TYPES,
    CAttention,
    CFeedForward,
    CNorm,
    CProjections,
    cached,
)

logger = logging.getLogger("cpuaccel")

ARCHITECTURES = frozenset({"llama", "mistral", "qwen2", "qwen3", "gemma3_text"})
"""Values of ``model_type``. Others may compute what a comparison on small numbers doesn't show,
such as Gemma 2, which limits the scores of attention."""

ACTIVATIONS: dict[type[torch.nn.Module], int] = {
    torch.nn.SiLU: 0,
    activations.SiLUActivation: 0,
    activations.GELUActivation: 1,
    activations.PytorchGELUTanh: 2,
    activations.GELUTanh: 2,
}

AGREEMENT = {torch.float32: 1e-4, torch.bfloat16: 0.1}
"""Largest accepted difference from the layer's own code, relative to the largest magnitude."""


@dataclass
class Parts:
    """What the kernels need of a layer; keeps the tensors alive that the structures point to."""

    projections: CProjections
    attention: CAttention
    feed_forward: CFeedForward
    index: int
    kept: list[torch.Tensor]


class Positions(threading.local):
    """Cosines and sines of one step in float32, computed once for all layers."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def rows(self, angles: torch.Tensor, batch: int) -> torch.Tensor:
        """Expand to float32 of shape (batch, tokens, head size)."""
        source, expanded = self._known.get(id(angles), (None, None))
        if source is not angles or expanded is None or len(expanded) != batch:
            expanded = angles.float().expand(batch, -1, -1).contiguous()
            if len(self._known) > 8:
                self._known.clear()
            self._known[id(angles)] = angles, expanded
        return expanded


class FusedForward:
    """The forward of a layer: by the kernels, or by the layer's own code.

    At first it computes both, and compares them.

    Attributes:
        agrees: whether they never differed.
    """

    def __init__(
        self, layer: torch.nn.Module, parts: Parts, library: ctypes.CDLL, positions: Positions
    ) -> None:
        self._plain: Callable[..., torch.Tensor] = layer.forward
        self._parts = parts
        self._library = library
        self._positions = positions
        self._checking = True
        self._compared = False
        self.agrees = True

    def finish_checking(self) -> None:
        """From now on compute by the kernels alone, if both were compared and agree."""
        self._checking = False
        self.agrees &= self._compared

    def __call__(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_embeddings: tuple[torch.Tensor, torch.Tensor] | None = None,
        past_key_values: Cache | None = None,
        **kwargs: object,
    ) -> torch.Tensor:
        """Take and return what the layer's own forward does."""
        if (
            position_embeddings is not None
            and past_key_values is not None
            and self._can_compute(hidden_states, attention_mask, position_embeddings)
        ):
            output = self._compute(
                hidden_states, attention_mask, position_embeddings, past_key_values
            )
            if not self._checking:
                return output
            layer = past_key_values.layers[self._parts.index]
            assert isinstance(layer, DynamicLayer)
            layer.crop(-hidden_states.shape[1])
        else:
            output = None
        plain = self._plain(
            hidden_states,
            attention_mask=attention_mask,
            position_embeddings=position_embeddings,
            past_key_values=past_key_values,
            **kwargs,
        )
        if output is not None:
            self._compare(output, plain)
        return plain

    def _can_compute(
        self,
        hidden: torch.Tensor,
        mask: torch.Tensor | None,
        positions: tuple[torch.Tensor, torch.Tensor],
    ) -> bool:
        return (
            self.agrees
            and hidden.shape[0] * hidden.shape[1] <= MOST_ROWS
            and (mask is None or _is_plain(mask))
            and positions[0].shape[-1] == self._parts.projections.head_size
        )

    def _compare(self, output: torch.Tensor, plain: torch.Tensor) -> None:
        self._compared = True
        difference = (output - plain).abs().max() / plain.abs().max()
        if output.shape != plain.shape or not difference <= AGREEMENT[plain.dtype]:
            logger.info(
                "layer %d computes something else than Llama's, and runs as it is (%s)",
                self._parts.index,
                difference,
            )
            self.agrees = False

    def _compute(
        self,
        hidden: torch.Tensor,
        mask: torch.Tensor | None,
        positions: tuple[torch.Tensor, torch.Tensor],
        cache: Cache,
    ) -> torch.Tensor:
        parts, library = self._parts, self._library
        batch, tokens, _ = hidden.shape
        heads, size = parts.attention.heads, parts.attention.head_size
        kind = ctypes.c_int64(TYPES[hidden.dtype])
        hidden = hidden.contiguous()
        cos, sin = (self._positions.rows(angles, batch) for angles in positions)
        query = torch.empty(batch, tokens, heads, size)
        key, value = hidden.new_empty(2, batch, tokens, parts.attention.key_heads, size).unbind()
        library.cpuaccel_project(
            ctypes.byref(parts.projections),
            *(_pointer(hidden), kind, ctypes.c_int64(batch * tokens), _pointer(cos)),
            *(_pointer(sin), _pointer(query), _pointer(key), _pointer(value)),
        )
        keys, values = cache.update(key.transpose(1, 2), value.transpose(1, 2), parts.index)
        if keys.stride(-1) != 1 or values.stride(-1) != 1:
            keys, values = keys.contiguous(), values.contiguous()
        if mask is not None and mask.shape[-1] < keys.shape[2]:
            raise ValueError(f"the mask has {mask.shape[-1]} keys, the cache {keys.shape[2]}")
        attended, output = torch.empty_like(hidden), torch.empty_like(hidden)
        strides = (0, 0) if mask is None else (mask.stride(0), mask.stride(2))
        if mask is not None and mask.shape[0] == 1:
            strides = (0, strides[1])
        library.cpuaccel_attend(
            ctypes.byref(parts.attention),
            *(_pointer(query), ctypes.byref(cached(keys)), ctypes.byref(cached(values))),
            *(None if mask is None else _pointer(mask), *map(ctypes.c_int64, strides)),
            *(ctypes.c_int64(batch), ctypes.c_int64(tokens)),
            *(_pointer(hidden), _pointer(attended), kind),
        )
        library.cpuaccel_feed_forward(
            ctypes.byref(parts.feed_forward),
            *(_pointer(attended), _pointer(output), kind, ctypes.c_int64(batch * tokens)),
        )
        return output


def _is_plain(mask: object) -> bool:
    """Whether a mask is one of Booleans for all heads, true where a key is seen."""
    return (
        isinstance(mask, torch.Tensor)
        and mask.dtype == torch.bool
        and mask.dim() == 4
        and mask.shape[1] == 1
        and mask.stride(-1) == 1
    )


def _pointer(tensor: torch.Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())


def find_parts(layer: torch.nn.Module) -> Parts | None:
    """Find the parts of Llama's layer in one; None where it has other ones."""
    try:
        return _parts(layer)
    except (AttributeError, KeyError, TypeError):
        return None


LLAMA = {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"}
GEMMA = LLAMA | {"pre_feedforward_layernorm", "post_feedforward_layernorm"}
ATTENTION = {"q_proj", "k_proj", "v_proj", "o_proj"}
GATED = {"gate_proj", "up_proj", "down_proj", "act_fn"}


def runs_its_class(module: torch.nn.Module) -> bool:
    """Whether calling a module runs its class's forward and nothing else, such as a hook.

    Transformers' own hooks record hidden states, and only while these are asked for.
    """
    hooks = (*module._forward_pre_hooks.values(), *module._forward_hooks.values())
    callers = [h for h in hooks if not getattr(h, "__module__", "").startswith("transformers.")]
    return not callers and "forward" not in vars(module)


def _parts(layer: torch.nn.Module) -> Parts | None:
    children = dict(layer.named_children())
    if set(children) not in (LLAMA, GEMMA) or "forward" in vars(layer):
        return None
    if not type(layer).__module__.startswith("transformers.models."):
        return None
    if not all(runs_its_class(module) for child in children.values() for module in child.modules()):
        return None
    attention, mlp = children["self_attn"], children["mlp"]
    if getattr(attention.config, "model_type", None) not in ARCHITECTURES:
        return None
    inside, gated = dict(attention.named_children()), dict(mlp.named_children())
    if set(inside) - {"q_norm", "k_norm", "rotary_fn"} != ATTENTION or set(gated) != GATED:
        return None
    linears = {
        name: child
        for name, child in {**inside, **gated}.items()
        if isinstance(child, FewRowsLinear)
    }
    if set(linears) != ATTENTION | GATED - {"act_fn"}:
        return None
    kept: list[torch.Tensor] = []
    nothing = CNorm(None, 0, 0.0)

    def norm(name: str, owner: dict[str, torch.nn.Module] = children) -> CNorm:
        return _norm(owner[name], kept) if name in owner else nothing

    is_gemma = set(children) == GEMMA
    size = int(_number(attention, "head_dim"))
    heads, key_heads = (linears[name].out_features // size for name in ("q_proj", "k_proj"))
    return Parts(
        CProjections(
            norm("input_layernorm"),
            *(linears[name].described for name in ("q_proj", "k_proj", "v_proj")),
            norm("q_norm", inside),
            norm("k_norm", inside),
            size,
        ),
        CAttention(
            linears["o_proj"].described,
            norm("post_attention_layernorm") if is_gemma else nothing,
            *(heads, key_heads, size, _number(attention, "scaling")),
        ),
        CFeedForward(
            norm("pre_feedforward_layernorm" if is_gemma else "post_attention_layernorm"),
            *(linears[name].described for name in ("gate_proj", "up_proj", "down_proj")),
            norm("post_feedforward_layernorm"),
            ACTIVATIONS[type(gated["act_fn"])],
        ),
        int(_number(attention, "layer_idx")),
        kept,
    )


def _number(module: torch.nn.Module, name: str) -> float:
    value: object = getattr(module, name)
    if not isinstance(value, int | float):
        raise TypeError(f"{name} is not a number")
    return value


def _norm(norm: torch.nn.Module, kept: list[torch.Tensor]) -> CNorm:
    """Describe a norm of root mean square; Gemma's weights are those that are added to 1."""
    named = "variance_epsilon" if hasattr(norm, "variance_epsilon") else "eps"
    epsilon, weight = _number(norm, named), norm.weight
    assert isinstance(weight, torch.Tensor)
    weight = weight.detach()
    inputs = torch.linspace(-2, 3, weight.numel(), dtype=weight.dtype)
    scaled = inputs.float() * torch.rsqrt(inputs.float().square().mean() + epsilon)
    for candidate in (weight.float(), 1 + weight.float()):
        if torch.allclose(norm(inputs).float(), scaled * candidate, atol=2e-2, rtol=2e-2):
            kept.append(candidate.contiguous())
            return CNorm(kept[-1].data_ptr(), candidate.numel(), epsilon)
    raise TypeError("another norm")
