"""Shorter ways to call an operator than through ``torch.ops``.

Torch's own Python functions take positional arguments as the operator does, and spend a third to a
half of the time on getting there: of the views between two linears that is most of their cost.
"""

from collections.abc import Callable, Mapping

import torch

from cpuaccel_plugins.aten_graph.program import aten

SHORTER: Mapping[object, Callable[..., object]] = {
    aten.add.Tensor: torch.add,
    aten.sub.Tensor: torch.sub,
    aten.mul.Tensor: torch.mul,
    aten.div.Tensor: torch.div,
    aten.linear.default: torch.nn.functional.linear,
    aten.matmul.default: torch.matmul,
    aten.softmax.int: torch.softmax,
    aten.reshape.default: torch.reshape,
    aten.transpose.int: torch.transpose,
    aten.permute.default: torch.permute,
    aten.unsqueeze.default: torch.unsqueeze,
    aten.squeeze.dim: torch.squeeze,
    aten.split_with_sizes.default: torch.split_with_sizes,
    aten.layer_norm.default: torch.layer_norm,
    aten.embedding.default: torch.embedding,
    aten.gelu.default: torch.nn.functional.gelu,
    aten.relu.default: torch.relu,
    aten.tanh.default: torch.tanh,
    aten.sigmoid.default: torch.sigmoid,
}
"""Of operators that stand between linears everywhere, the function of the same arguments."""
