"""Pass: what is computed of weights alone is computed once."""

import torch
from torch.fx import Node

from cpuaccel_plugins.aten_graph.program import Program, aten, is_call

_GROWING = (aten.expand.default, aten.repeat.default)


def fold_constants(program: Program) -> None:
    """Replace operators whose operands are all held tensors by their result.

    So a weight that is kept in two parts, as by ``weight_norm``, is put together here. Not where
    the result would be larger than what it is made of.
    """
    for node in list(program.graph.nodes):
        if not _is_constant(program, node):
            continue
        operands = [program.constant(operand) for operand in node.all_input_nodes]
        result = node.target(
            *torch.fx.map_arg(node.args, program.constant),
            **torch.fx.map_arg(node.kwargs, program.constant),
        )
        held = sum(operand.numel() for operand in operands if operand is not None)
        if isinstance(result, torch.Tensor) and result.numel() <= held:
            with program.graph.inserting_before(node):
                program.replace(node, program.hold(result, f"{node.name}_folded"))
    program.sweep()


def _is_constant(program: Program, node: Node) -> bool:
    target = node.target
    if node.op != "call_function" or not isinstance(target, torch._ops.OpOverload):
        return False
    operands = node.all_input_nodes
    random = torch.Tag.nondeterministic_seeded in target.tags
    steady = not random and not is_call(node, *_GROWING)
    return steady and bool(operands) and all(program.constant(o) is not None for o in operands)
