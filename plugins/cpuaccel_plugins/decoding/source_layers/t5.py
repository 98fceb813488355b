"""Decoder layers of T5's kind: norms of root mean square, scores with a bias of their positions."""

import torch

from cpuaccel_plugins.decoding.parts import ACTIVATIONS, described_norm
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
    CProjections,
)

BLOCKS = frozenset({"T5Block", "MT5Block"})

GATED = {"wi_0", "wi_1", "wo", "act", "dropout"}
NOT_GATED = {"wi", "wo", "act", "dropout"}


def find_parts(block: torch.nn.Module) -> SourceParts | None:
    """Find the parts of T5's decoder block in one; None where it has other ones."""
    if not is_class_of(block, BLOCKS):
        return None
    try:
        return _parts(block)
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


def _parts(block: torch.nn.Module) -> SourceParts:
    layers = block.layer
    assert isinstance(layers, torch.nn.ModuleList)
    own_layer, source_layer, last = layers
    kept: list[torch.Tensor] = []

    def attention(
        layer: torch.nn.Module, name: str, *projected: str
    ) -> tuple[CProjections, CAttention]:
        module = layer.get_submodule(name)
        linears = [linear_in(module, each).described for each in projected]
        linears += [CLinear()] * (3 - len(linears))
        heads, size, output = module.n_heads, module.key_value_proj_dim, linear_in(module, "o")
        norm = described_norm(layer.get_submodule("layer_norm"), kept)
        return (
            CProjections(norm, *linears, NO_NORM, NO_NORM, size),
            CAttention(
                output.described, NO_NORM, NO_NORM, CHeads(heads, heads, size, module.scaling)
            ),
        )

    own = attention(own_layer, "SelfAttention", "q", "k", "v")
    source = attention(source_layer, "EncDecAttention", "q")
    network = last.get_submodule("DenseReluDense")
    children = dict(network.named_children())
    if set(children) not in (GATED, NOT_GATED):
        raise TypeError(f"other parts: {sorted(children)}")
    names = ("wi_0", "wi_1", "wo") if "wi_0" in children else ("wi", "wo")
    linears = [linear_in(network, name).described for name in names]
    feed_forward = CFeedForward(
        described_norm(last.get_submodule("layer_norm"), kept),
        *([CLinear()] * (3 - len(linears)) + linears),
        NO_NORM,
        NO_NORM,
        ACTIVATIONS[type(children["act"])],
    )
    attended = own_layer.get_submodule("SelfAttention")
    index, heads, size = integers_in(attended, "layer_idx", "n_heads", "key_value_proj_dim")
    over_source = source_layer.get_submodule("EncDecAttention")
    key, value = (linear_in(over_source, name) for name in ("k", "v"))
    described = described_layer(own, source, feed_forward)
    return SourceParts(described, key, value, index, heads, size, [block, *kept])
