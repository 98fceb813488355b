"""Pass: queries, keys and values that come of one joint linear reach attention as one tensor."""

import operator
from typing import NamedTuple, TypeGuard

from torch.fx import Node

from .attend import attend
from .packed import attend_packed
from .program import Program, aten, call, is_call, same_size, value


def join_operands(program: Program) -> None:
    """Hand a joint linear's result to attention as it is, cut into heads by two views.

    Cut into three first, each of them reshaped, transposed and copied, it is some fifteen calls of
    a microsecond or more in every layer.
    """
    for node in program.calls(attend, attend_packed):
        found = _joint(node.args[0])
        if found is None:
            continue
        joint, sizes = found
        with program.graph.inserting_before(node):
            cut = call(program.graph, aten.reshape.default, joint, sizes)
            stacked = call(program.graph, aten.permute.default, cut, [2, 0, 3, 1, 4])
        node.update_arg(0, stacked)
    program.sweep()


class _Part(NamedTuple):
    """Of an operand: the split that it is a part of, which part, and how that was reshaped."""

    split: Node
    place: object
    sizes: tuple[object, ...]

    @classmethod
    def of(cls, operand: object) -> "_Part | None":
        if not _calls(operand, aten.transpose.int) or operand.args[1:] != (1, 2):
            return None
        reshaped = operand.args[0]
        if not _calls(reshaped, aten.reshape.default):
            return None
        part, sizes = reshaped.args[0], reshaped.args[1]
        if not _calls(part, operator.getitem) or not isinstance(sizes, (list, tuple)):
            return None
        split = part.args[0]
        if not _calls(split, aten.split_with_sizes.default) or len(sizes) != 4:
            return None
        return cls(split, part.args[1], tuple(sizes))


def _calls(node: object, target: object) -> TypeGuard[Node]:
    return is_call(node, target)


def _joint(operands: object) -> tuple[Node, list[object]] | None:
    """What three operands are the thirds of, and the sizes that cut it into their heads."""
    if not isinstance(operands, tuple):
        return None
    first, *others = (_Part.of(operand) for operand in operands)
    if first is None or first.place != 0:
        return None
    if others != [first._replace(place=1), first._replace(place=2)]:
        return None
    joint, widths, axis = first.split.args
    assert isinstance(joint, Node)
    assert isinstance(widths, (list, tuple))
    cut = value(operands[0])
    assert cut is not None
    width = cut.shape[1] * cut.shape[3]  # another one, and the reshape has moved tokens
    if axis != -1 or len(widths) != 3 or not all(same_size(w, width) for w in widths):
        return None
    return joint, [*first.sizes[:2], 3, *first.sizes[2:]]
