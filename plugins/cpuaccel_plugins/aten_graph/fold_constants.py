"""Pass: compute once what depends on weights alone."""

import torch
from torch.fx import Node

from cpuaccel_plugins.aten_graph.nodes import aten, is_call
from cpuaccel_plugins.aten_graph.program import Program

_GROWING = (aten.expand.default, aten.repeat.default)


def fold_constants(program: Program) -> None:
    """Replace operators of weights alone by their result, unless that is larger than the operands.

    ``linear(x, direction * norm)``, as ``weight_norm`` makes it -> ``linear(x, weight)``.
    """
    for node in list(program.graph.nodes):
        if not _is_constant(program, node):
            continue
        operands = [program.constant(operand) for operand in node.all_input_nodes]
        result = node.target(
            *torch.fx.map_arg(node.args, program.constant),
            **torch.fx.map_arg(node.kwargs, program.constant),
        )
        size = sum(operand.numel() for operand in operands if operand is not None)
        if isinstance(result, torch.Tensor) and result.numel() <= size:
            with program.graph.inserting_before(node):
                program.replace(node, program.add_tensor(result, f"{node.name}_folded"))
    program.sweep()


def _is_constant(program: Program, node: Node) -> bool:
    target = node.target
    if node.op != "call_function" or not isinstance(target, torch._ops.OpOverload):
        return False
    operands = node.all_input_nodes
    random = torch.Tag.nondeterministic_seeded in target.tags
    steady = not random and not is_call(node, *_GROWING)
    return steady and bool(operands) and all(program.constant(o) is not None for o in operands)
