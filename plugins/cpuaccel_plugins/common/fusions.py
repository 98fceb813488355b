"""Fused operators in a TorchScript graph, counted by common names."""

from collections import Counter
from collections.abc import Iterator

import torch

CONCAT_LINEAR = "concat linear"
ATTENTION = "multi-head attention"

_NAMES = {
    "linear_add": "linear+add",
    "linear_gelu": "linear+gelu",
    "linear_relu": "linear+relu",
    "linear_tanh": "linear+tanh",
    "linear_sigmoid": "linear+sigmoid",
    "linear_silu": "linear+silu",
    "convolution_relu": "conv+relu",
    "convolution_add": "conv+add",
    "convolution_gelu": "conv+gelu",
    "add_layernorm": "add+layernorm",
    "mha_scores_calc": ATTENTION,
    "flash_mha": ATTENTION,
    "distil_mha_scores_calc": ATTENTION,
    "vit_mha": ATTENTION,
    "mha": ATTENTION,
    "transformer_encoder_layer": "encoder layer",
}
"""Common names by a part of the operator's name; the longest matching part is used."""

_STOCK = frozenset({"aten::_transformer_encoder_layer_fwd"})
"""Fused operators of torch itself."""

_SPLITTERS = ("split_with_sizes", "split_tensor", "flash_mha")
"""Parts of the names of operators that split the result of concatenated linears."""


def count_fusions(graph: torch.Graph) -> dict[str, int]:
    """Count fused operators in an optimized graph by name, such as ``{"linear+gelu": 12}``."""
    counts: Counter[str] = Counter()
    for node in _nodes(graph):
        namespace, _, operator = node.kind().partition("::")
        if namespace in {"aten", "prim"} and node.kind() not in _STOCK:
            continue
        part = max((part for part in _NAMES if part in operator), key=len, default=None)
        if part is not None:
            counts[_NAMES[part]] += 1
        users = [use.user.kind() for use in node.output().uses()] if node.outputsSize() == 1 else []
        if operator.startswith(("linear", "mkl_sgemm")) and any(
            splitter in user for user in users for splitter in _SPLITTERS
        ):
            counts[CONCAT_LINEAR] += 1
    return dict(sorted(counts.items()))


def _nodes(block: torch.Graph | torch.Block) -> Iterator[torch.Node]:
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from _nodes(inner)
        if node.hasAttribute("Subgraph"):
            yield from _nodes(node.g("Subgraph"))
