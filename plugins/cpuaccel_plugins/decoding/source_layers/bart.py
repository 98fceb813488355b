"""Decoder layers of BART's kind: norms with a mean, before each part or after it."""

import torch

from cpuaccel_plugins.decoding.parts import ACTIVATIONS
from cpuaccel_plugins.decoding.source_layers.parts import (
    SourceParts,
    described_layer,
    integers_in,
    is_class_of,
    linear_in,
)
from cpuaccel_plugins.decoding.structures import (
    NO_NORM,
    CAttention,
    CFeedForward,
    CHeads,
    CLinear,
    CNorm,
    CProjections,
)

NORMS_BEFORE = frozenset(
    f"{name}DecoderLayer" for name in ("MBart", "M2M100", "Pegasus", "Whisper")
)
NORMS_AFTER = frozenset(f"{name}DecoderLayer" for name in ("Bart", "Marian", "TrOCR"))
"""Classes of Transformers that normalize what each of their parts reads, or each sum."""

PARTS = frozenset(
    {
        *("self_attn", "self_attn_layer_norm", "encoder_attn", "encoder_attn_layer_norm"),
        *("activation_fn", "fc1", "fc2", "final_layer_norm"),
    }
)

OF_ATTENTION = {"q_proj", "k_proj", "v_proj", "out_proj"}


def find_parts(layer: torch.nn.Module) -> SourceParts | None:
    """Find the parts of BART's layer in one; None where it has other ones."""
    if not is_class_of(layer, NORMS_BEFORE | NORMS_AFTER):
        return None
    try:
        return _parts(layer)
    except (AttributeError, KeyError, TypeError):
        return None


def _parts(layer: torch.nn.Module) -> SourceParts:
    children = dict(layer.named_children())
    if set(children) != PARTS:
        raise TypeError(f"other parts: {sorted(children)}")
    kept: list[object] = [layer]
    is_before = type(layer).__name__ in NORMS_BEFORE

    def norms(name: str) -> tuple[CNorm, CNorm]:
        """The norm of a part's inputs, and that of its sum with them."""
        norm = _norm(children[name], kept)
        return (norm, NO_NORM) if is_before else (NO_NORM, norm)

    def attention(name: str, *projected: str) -> tuple[CProjections, CAttention]:
        module = children[name]
        if set(dict(module.named_children())) != OF_ATTENTION:
            raise TypeError(f"other parts of {name}")
        before, closing = norms(f"{name}_layer_norm")
        linears = [linear_in(module, each).described for each in projected]
        linears += [CLinear()] * (3 - len(linears))
        output, heads, size = linear_in(module, "out_proj"), module.num_heads, module.head_dim
        return (
            CProjections(before, *linears, NO_NORM, NO_NORM, size),
            CAttention(
                output.described, NO_NORM, closing, CHeads(heads, heads, size, module.scaling)
            ),
        )

    own = attention("self_attn", "q_proj", "k_proj", "v_proj")
    source = attention("encoder_attn", "q_proj")
    before, closing = norms("final_layer_norm")
    feed_forward = CFeedForward(
        before,
        CLinear(),
        *(linear_in(layer, name).described for name in ("fc1", "fc2")),
        NO_NORM,
        closing,
        ACTIVATIONS[type(children["activation_fn"])],
    )
    index, heads, size = integers_in(children["self_attn"], "layer_idx", "num_heads", "head_dim")
    key, value = (linear_in(children["encoder_attn"], name) for name in ("k_proj", "v_proj"))
    if key.out_features != heads * size:
        raise TypeError("other heads over the encoder's output")
    described = described_layer(own, source, feed_forward)
    return SourceParts(described, key, value, index, heads, size, kept)


def _norm(module: torch.nn.Module, kept: list[object]) -> CNorm:
    if type(module) is not torch.nn.LayerNorm or module.weight is None or module.bias is None:
        raise TypeError("another norm")
    tensors = [tensor.detach().float().contiguous() for tensor in (module.weight, module.bias)]
    kept += tensors
    return CNorm(*(tensor.data_ptr() for tensor in tensors), tensors[0].numel(), module.eps)
