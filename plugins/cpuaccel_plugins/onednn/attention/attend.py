"""Attention at call time, by the method that was measured fastest."""

import bisect
import itertools
import operator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch.nn.functional import scaled_dot_product_attention

from cpuaccel_plugins.onednn.attention.graph import KernelKey, kernels
from cpuaccel_plugins.onednn.attention.kernel import attend_to_all
from cpuaccel_plugins.onednn.attention.masks import Mask, Span
from cpuaccel_plugins.onednn.attention.precision import onednn_matmul
from cpuaccel_plugins.onednn.attention.workspace import Sizes, Workspace, workspace

Operands: TypeAlias = torch.Tensor | tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Queries, keys and values, each of shape (batch, heads, tokens, head size); or the result of one
joint linear that computes all three, shape (batch, tokens, 3, heads, head size)."""

_UNCHANGED = nullcontext()

Method: TypeAlias = Literal["stock", "products", "graph", "kernel", "bfloat16 kernel"]
"""The stock operator; matrix products and a softmax; a kernel compiled from these by oneDNN's
graph API, for sizes that are frequent enough to compile for, with products for all others; or our
own kernel without masks, with products in float32 or bfloat16, and torch's products with masks."""


@dataclass(frozen=True)
class MethodByLength:
    """The method of attention that was measured fastest at several lengths."""

    lengths: tuple[int, ...]  # ascending
    fastest: tuple[Method, ...]

    def nearest(self, length: int) -> Method:
        """The method of the nearest length measured."""
        index = bisect.bisect(self.lengths, length)
        if index == len(self.lengths):
            return self.fastest[-1]
        if index and length - self.lengths[index - 1] <= self.lengths[index] - length:
            index -= 1
        return self.fastest[index]

    def __str__(self) -> str:
        if len(self.lengths) == 1:
            return self.fastest[0]
        alike = itertools.groupby(zip(self.lengths, self.fastest), operator.itemgetter(1))
        parts = [
            f"{method} at {', '.join(str(length) for length, _ in group)}"
            for method, group in alike
        ]
        return f"{'; '.join(parts)} tokens"


PRODUCTS = MethodByLength((1,), ("products",))

GRAPH = MethodByLength((1,), ("graph",))
"""Compiled kernels for every length, where they can be compiled."""


def attend(
    operands: Operands, mask: Mask | None, scale: float, method_by_length: MethodByLength
) -> torch.Tensor:
    """Attend row by row; returns shape (batch, queries, heads x head size), as linears read it."""
    if isinstance(operands, torch.Tensor):
        batch, queries, _, heads, size = operands.shape
        keys, dtype = queries, operands.dtype
    else:
        batch, heads, queries, size = operands[0].shape
        keys, dtype = operands[1].shape[2], operands[0].dtype
    method = method_by_length.nearest(keys)
    if method == "stock":
        return attend_by_stock(operands, None, None if mask is None else mask.original, scale)
    if method == "graph" and mask is None:
        result = attend_by_graph(operands, scale)
        if result is not None:
            return result
    out = torch.empty(batch, queries, heads * size, dtype=dtype)
    if mask is None and attend_by_kernel(split_operands(operands), scale, method, out):
        return out
    spans = None if mask is None else mask.spans
    added = None if mask is None else mask.added
    for row in range(batch):
        space = load_workspace(
            operands if batch == 1 else _select_row(operands, row),
            None if spans is None else spans[row if len(spans) > 1 else 0],
        )
        bias = None if added is None else added[row if len(added) > 1 else 0]
        attend_sequence(space, bias, scale, out, row * queries)
    if mask is not None and mask.idle is not None:
        out.view(batch, queries, heads, size).masked_fill_(mask.idle.transpose(1, 2), 0)
    return out


def attend_by_stock(
    operands: Operands, span: Span | None, mask: torch.Tensor | None, scale: float
) -> torch.Tensor:
    """Attend by the stock operator, to the keys of a span or to all."""
    query, key, value = split_operands(operands, span)
    result = scaled_dot_product_attention(query, key, value, mask, scale=scale)
    return result.transpose(1, 2).flatten(2)


def attend_by_graph(operands: Operands, scale: float) -> torch.Tensor | None:
    """Attend by a compiled kernel to all keys; None if there is none for these operands."""
    if not isinstance(operands, torch.Tensor):
        return None
    batch, tokens, _, heads, size = operands.shape
    width = heads * size
    # is_contiguous() ignores the stride of a single row, but the compiled kernel does not.
    if operands.stride() != (3 * tokens * width, 3 * width, width, size, 1):
        return None
    threads = torch.get_num_threads()
    kernel = kernels.get(KernelKey(batch, tokens, heads, size, operands.dtype, scale, threads))
    return None if kernel is None else kernel(operands)


def attend_by_kernel(
    operands: tuple[torch.Tensor, ...], scale: float, method: Method, out: torch.Tensor
) -> bool:
    """Attend by our own kernel to all keys, if that is the method and it computes these operands.

    ``out`` gets the result, shape (batch, queries, heads x head size), contiguous.
    """
    if method not in ("kernel", "bfloat16 kernel"):
        return False
    query, key, value = operands
    narrow = method == "bfloat16 kernel"
    return attend_to_all(query, key, value, scale, out, narrow=narrow)


def split_operands(operands: Operands, span: Span | None = None) -> tuple[torch.Tensor, ...]:
    """Queries, keys and values of a span, or of all; shape (batch, heads, tokens, head size)."""
    if isinstance(operands, torch.Tensor):
        query, key, value = operands.permute(2, 0, 3, 1, 4).unbind(0)
    else:
        query, key, value = operands
    if span is None:
        return query, key, value
    first, last = span
    return query, key[:, :, first:last], value[:, :, first:last]


def _select_row(operands: Operands, row: int) -> Operands:
    if isinstance(operands, torch.Tensor):
        return operands[row : row + 1]
    query, key, value = operands
    return query[row : row + 1], key[row : row + 1], value[row : row + 1]


def slice_tokens(operands: Operands, begin: int, end: int) -> Operands:
    """The operands of some tokens in a batch of one."""
    if isinstance(operands, torch.Tensor):
        # Not [:, begin:end]: kernels are compiled for the strides of a tensor of this size.
        return operands[0, begin:end].unsqueeze(0)
    query, key, value = operands
    return query[:, :, begin:end], key[:, :, begin:end], value[:, :, begin:end]


def load_workspace(operands: Operands, span: Span | None) -> Workspace:
    """Copy the operands of a batch of one, with the keys of a span, into the thread's workspace."""
    if span is None and isinstance(operands, torch.Tensor):
        _, length, _, heads, size = operands.shape
        space = workspace(Sizes(heads, length, length, size, operands.dtype))
        space.fill_jointly(operands)
        return space
    query, key, value = split_operands(operands, span)
    _, heads, queries, size = query.shape
    space = workspace(Sizes(heads, queries, key.shape[2], size, query.dtype))
    space.fill(query, key, value)
    return space


def attend_sequence(
    space: Workspace, bias: torch.Tensor | None, scale: float, out: torch.Tensor, first: int
) -> None:
    """Attend within one sequence, by products of the operands in the workspace.

    The result is written to ``out``, shape (batch, tokens, heads x head size), contiguous, from
    token ``first``, counted over all. ``bias`` broadcasts to the scores (heads, queries, keys).
    """
    heads, queries, _, size, dtype = space.sizes
    width = heads * size
    own = out.as_strided((heads, queries, size), (size, width, 1), first * width)
    with onednn_matmul() if dtype is torch.float32 else _UNCHANGED:
        for part in space.parts:
            scores = part.scores
            torch.baddbmm(scores, part.query, part.transposed_key, beta=0, alpha=scale, out=scores)
            if bias is not None:
                scores += bias if len(bias) == 1 else bias[part.heads]
            torch.softmax(scores, -1, out=scores)
            torch.bmm(scores, part.value, out=own if part.whole else own[part.heads])
