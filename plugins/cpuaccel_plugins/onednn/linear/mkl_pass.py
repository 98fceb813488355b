"""Pass: linears that MKL computes faster than oneDNN, as on Intel's processors in float32."""

import functools

import torch
from torch.fx import Node

from cpuaccel_plugins.aten_graph.program import Program, aten, call
from cpuaccel_plugins.onednn.linear import mkl
from cpuaccel_plugins.onednn.linear.linears import Fused, fused_linears
from cpuaccel_plugins.onednn.linear.mkl_choice import Prefers
from cpuaccel_plugins.onednn.linear.prepack import let_go
from cpuaccel_plugins.onednn.linear.unary import STOCK


def use_mkl(program: Program, choice: Prefers) -> None:
    """Let MKL compute what it computes faster; what was fused with it comes after it, then.

    A weight goes to one of the two, however many linears share it, and its dense form is let go.
    """
    for dense, linears in fused_linears(program).items():
        weight = program.held(dense)
        usable = weight.dtype is torch.float32 and not weight.is_mkldnn
        if not usable or not all(choice.prefers(program, linear) for linear in linears):
            continue
        if program.release is not None and not bool(weight.isfinite().all()):
            continue  # it could not be unpacked
        packed, shaped = mkl.pack(weight.contiguous()), mkl.outline(weight)
        with program.graph.inserting_before(dense):
            held = program.hold(packed, f"{dense.target}_mkl", like=weight)
            sizes = program.hold(shaped, f"{dense.target}_sizes")
        for linear in linears:
            _replace(program, linear, held, sizes)
        let_go(program, dense, functools.partial(mkl.unpack, packed, shaped))
        program.packed += 1


def _replace(program: Program, linear: Fused, packed: Node, sizes: Node) -> None:
    node = linear.node
    with program.graph.inserting_before(node):
        new = call(program.graph, mkl.multiply, linear.input, packed, sizes, linear.bias)
        if linear.other is not None:
            new.meta["val"] = node.meta["val"]
            new = call(program.graph, aten.add.Tensor, new, linear.other)
            program.fusions["linear+add"] -= 1
        elif linear.activation != "none":
            new.meta["val"] = node.meta["val"]
            activation, known_as = STOCK[linear.activation]
            new = call(program.graph, activation, new)
            if linear.algorithm:
                new.kwargs = {"approximate": linear.algorithm}
            program.fusions[f"linear+{known_as}"] -= 1
    program.replace(node, new)
