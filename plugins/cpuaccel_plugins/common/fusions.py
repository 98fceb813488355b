"""Fused operators in a TorchScript graph, counted by common names."""

import re
from collections import Counter
from collections.abc import Iterator

import torch

CONCAT_LINEAR = "concat linear"
ATTENTION = "multi-head attention"

_FUSED = re.compile(r"(linear|convolution|conv_transpose)_([a-z0-9_]+?)_run(?:_v\d+)?")
"""Operators of IPEX that compute more than their first part, such as ``linear_leaky_relu_run``."""

_PARTS = re.compile(r"leaky_relu|[a-z0-9]+")

_COMMON = {"convolution": "conv", "conv_transpose": "conv transpose", "swish": "silu"}
"""Common names of parts that IPEX calls otherwise."""

_NAMES = {
    "add_layernorm": "add+layernorm",
    "bmm_add": "matmul+add",
    "concat_bn_relu": "concat+batch norm+relu",
    "einsum_binary": "einsum+add",
    "maskedfill_softmax": "masked fill+softmax",
    "matmul_div": "matmul+div",
    "matmul_mul": "matmul+mul",
    "mha_scores_calc": ATTENTION,
    "flash_mha": ATTENTION,
    "distil_mha_scores_calc": ATTENTION,
    "vit_mha": ATTENTION,
    "mha": ATTENTION,
    "transformer_encoder_layer": "encoder layer",
}
"""Common names by a part of any other operator's name; the longest matching part is used."""

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
        if name := _common_name(operator):
            counts[name] += 1
        users = [use.user.kind() for use in node.output().uses()] if node.outputsSize() == 1 else []
        if operator.startswith(("linear", "mkl_sgemm")) and any(
            splitter in user for user in users for splitter in _SPLITTERS
        ):
            counts[CONCAT_LINEAR] += 1
    return dict(sorted(counts.items()))


def _common_name(operator: str) -> str | None:
    if fused := _FUSED.fullmatch(operator):
        parts = [fused[1], *_PARTS.findall(fused[2])]
        return "+".join(_COMMON.get(part, part) for part in parts)
    part = max((part for part in _NAMES if part in operator), key=len, default=None)
    return None if part is None else _NAMES[part]


def _nodes(block: torch.Graph | torch.Block) -> Iterator[torch.Node]:
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from _nodes(inner)
        if node.hasAttribute("Subgraph"):
            yield from _nodes(node.g("Subgraph"))
