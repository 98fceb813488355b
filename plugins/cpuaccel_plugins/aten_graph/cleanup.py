"""Pass: remove what an exported graph has and a call does not need."""

import operator

import torch
from torch.fx import Node

from cpuaccel_plugins.aten_graph.nodes import argument, aten, dtype, is_call, same_shape, value
from cpuaccel_plugins.aten_graph.program import Program

_CHECKS = {
    "aten::_assert_tensor_metadata",
    "aten::_assert_scalar",
    "aten::_assert_async",
    "aten::sym_constrain_range",
    "aten::sym_constrain_range_for_size",
}
_CASTS = (aten.to.dtype, aten.to.device, aten.to.dtype_layout, aten.to.other, aten._to_copy.default)
_ALIASES = (
    aten.alias.default,
    aten.detach.default,
    aten.lift_fresh_copy.default,
    aten.dropout.default,
    aten.feature_dropout.default,
)
_VIEWS = (aten.view.default, aten.reshape.default, aten._unsafe_view.default)


def remove_redundant(program: Program) -> None:
    """Remove what changes nothing, and share repeated calls.

    ``dropout(x)`` in eval mode, ``x.to(x.dtype)``, ``x[0:]``, ``x + 0`` -> ``x``;
    ``f(x), f(x)`` -> ``y = f(x)``, used twice.
    """
    for node in list(program.graph.nodes):
        if _name(node) in _CHECKS and not node.users:
            program.graph.erase_node(node)
    for node in list(program.graph.nodes):
        if is_call(node, *_VIEWS):
            # The same as a view, but also works after a fusion has changed strides.
            node.target = aten.reshape.default
        if (source := _equal_input(node)) is not None:
            node.replace_all_uses_with(source)
            program.graph.erase_node(node)
    _share_repeated(program)
    program.sweep()


def _name(node: Node) -> str:
    target = node.target
    return target._schema.name if isinstance(target, torch._ops.OpOverload) else ""


def _equal_input(node: Node) -> Node | None:
    """The input that a node returns unchanged; None if it computes something."""
    if node.op != "call_function" or not node.args or not isinstance(node.args[0], Node):
        return None
    source = node.args[0]
    if is_call(node, *_ALIASES):
        training = "dropout" in _name(node) and argument(node, "train")
        return None if training else source
    if is_call(node, *_CASTS):
        copies = node.kwargs.get("copy", False) or is_call(node, aten._to_copy.default)
        plain = node.kwargs.get("memory_format") is None
        return source if dtype(node) == dtype(source) and not copies and plain else None
    if is_call(node, aten.clone.default):
        # No operator works in place; but the caller must not get its own input back.
        own = source.op == "call_function" and node.kwargs.get("memory_format") is None
        return source if own else None
    if is_call(node, aten.slice.Tensor):
        start, end, step = (argument(node, name) for name in ("start", "end", "step"))
        whole = end is None or (isinstance(end, int) and end >= 2**62)
        return source if start in (0, None) and whole and step == 1 else None
    if is_call(node, aten.reshape.default, aten.expand.default):
        return source if same_shape(node, source) else None
    if is_call(node, aten.add.Tensor):
        # Transformers adds an offset of 0 to the positions of masks.
        return source if node.args[1] == 0 and dtype(node) == dtype(source) else None
    return None


def _share_repeated(program: Program) -> None:
    known: dict[object, Node] = {}
    for node in list(program.graph.nodes):
        if node.op == "get_attr":
            key: object = ("tensor", id(program.tensors[str(node.target)]))
        elif node.op == "call_function" and is_pure(node):
            key = (node.target, repr(node.args), repr(node.kwargs))
        else:
            continue
        first = known.setdefault(key, node)
        if first is not node:
            node.replace_all_uses_with(first)
            program.graph.erase_node(node)


def is_pure(node: Node) -> bool:
    """Whether a call returns the same for the same arguments."""
    target = node.target
    if isinstance(target, torch._ops.OpOverload):
        return torch.Tag.nondeterministic_seeded not in target.tags
    return target is operator.getitem or value(node) is None
