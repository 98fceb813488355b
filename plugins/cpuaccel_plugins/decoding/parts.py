"""Finding in a decoder layer the parts that the kernels compute.

The layers of the architectures in ``ARCHITECTURES`` have the same parts: norms of root mean square,
queries and keys turned by their position, a gated feed-forward network.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from transformers import activations

from cpuaccel_plugins.decoding.linear import FewRowsLinear
from cpuaccel_plugins.decoding.structures import (
    NO_NORM,
    CAttention,
    CFeedForward,
    CHeads,
    CNorm,
    CProjections,
)

ARCHITECTURES = frozenset(
    {"llama", "mistral", "qwen2", "qwen3", "gemma3_text", "mixtral", "qwen3_moe"}
)
"""Values of ``model_type``. Others may compute what a comparison on small numbers doesn't show,
such as Gemma 2, which limits the scores of attention."""

ACTIVATIONS: dict[type[torch.nn.Module], int] = {
    torch.nn.SiLU: 0,
    activations.SiLUActivation: 0,
    activations.GELUActivation: 1,
    activations.PytorchGELUTanh: 2,
    activations.GELUTanh: 2,
    activations.NewGELUActivation: 2,
    torch.nn.ReLU: 3,
}

LLAMA = {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"}
GEMMA = LLAMA | {"pre_feedforward_layernorm", "post_feedforward_layernorm"}
ATTENTION = {"q_proj", "k_proj", "v_proj", "o_proj"}
GATED = {"gate_proj", "up_proj", "down_proj", "act_fn"}
MIXTURE = {"gate", "experts"}


@dataclass
class Parts:
    """What the kernels need of a layer.

    Attributes:
        projections: for queries, keys and values.
        attention: for attention and its output.
        feed_forward: for the network after it, or, for a mixture, its norm and its own code.
        index: of the layer.
        kept: the tensors that the structures point to.
        has_few_bits: whether a weight has 8 or 4 bits.
        is_packed: whether all of them do.
    """

    projections: CProjections
    attention: CAttention
    feed_forward: CFeedForward | Callable[[torch.Tensor], torch.Tensor]
    index: int
    kept: list[torch.Tensor]
    has_few_bits: bool
    is_packed: bool


def find_parts(layer: torch.nn.Module) -> Parts | None:
    """Find the parts of Llama's layer in one; None where it has other ones."""
    try:
        return _parts(layer)
    except (AttributeError, KeyError, TypeError):
        return None


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
    if set(inside) - {"q_norm", "k_norm", "rotary_fn"} != ATTENTION:
        return None
    is_mixture = set(gated) == MIXTURE and set(children) == LLAMA
    if set(gated) != GATED and not is_mixture:
        return None
    linears = {
        name: child
        for name, child in {**inside, **({} if is_mixture else gated)}.items()
        if isinstance(child, FewRowsLinear)
    }
    if set(linears) != (ATTENTION if is_mixture else ATTENTION | GATED - {"act_fn"}):
        return None
    kept: list[torch.Tensor] = []

    def norm(name: str, owner: dict[str, torch.nn.Module] = children) -> CNorm:
        return described_norm(owner[name], kept) if name in owner else NO_NORM

    is_gemma = set(children) == GEMMA
    size = int(_number(attention, "head_dim"))
    heads, key_heads = (linears[name].out_features // size for name in ("q_proj", "k_proj"))
    feed_forward: CFeedForward | torch.nn.Module
    if is_mixture:
        feed_forward = torch.nn.Sequential(children["post_attention_layernorm"], mlp)
    else:
        feed_forward = CFeedForward(
            norm("pre_feedforward_layernorm" if is_gemma else "post_attention_layernorm"),
            *(linears[name].described for name in ("gate_proj", "up_proj", "down_proj")),
            norm("post_feedforward_layernorm"),
            NO_NORM,
            ACTIVATIONS[type(gated["act_fn"])],
        )
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
            norm("post_attention_layernorm") if is_gemma else NO_NORM,
            NO_NORM,
            CHeads(heads, key_heads, size, _number(attention, "scaling")),
        ),
        feed_forward,
        int(_number(attention, "layer_idx")),
        kept,
        any(linear.has_few_bits for linear in linears.values()),
        all(linear.has_few_bits for linear in linears.values()),
    )


def _number(module: torch.nn.Module, name: str) -> float:
    value: object = getattr(module, name)
    if not isinstance(value, int | float):
        raise TypeError(f"{name} is not a number")
    return value


def described_norm(norm: torch.nn.Module, kept: list[torch.Tensor]) -> CNorm:
    """Describe a norm of root mean square; Gemma's weights are those that are added to 1.

    Raises:
        TypeError: it computes something else.
    """
    named = "variance_epsilon" if hasattr(norm, "variance_epsilon") else "eps"
    epsilon, weight = _number(norm, named), norm.weight
    assert isinstance(weight, torch.Tensor)
    weight = weight.detach()
    inputs = torch.linspace(-2, 3, weight.numel(), dtype=weight.dtype)
    scaled = inputs.float() * torch.rsqrt(inputs.float().square().mean() + epsilon)
    for candidate in (weight.float(), 1 + weight.float()):
        if torch.allclose(norm(inputs).float(), scaled * candidate, atol=2e-2, rtol=2e-2):
            kept.append(candidate.contiguous())
            return CNorm(kept[-1].data_ptr(), None, candidate.numel(), epsilon)
    raise TypeError("another norm")
