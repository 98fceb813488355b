"""From an eager module to a graph of aten operators, with ``torch.export``."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch.fx import Graph, Node

import cpuaccel
from cpuaccel import BackendError, Release, Signature
from cpuaccel_plugins.aten_graph.nodes import shape
from cpuaccel_plugins.aten_graph.program import Program
from cpuaccel_plugins.common.engine_errors import engine_errors
from cpuaccel_plugins.common.open_sizes import export_open, fixed_size, open_axes
from cpuaccel_plugins.common.quiet import quiet_export

if TYPE_CHECKING:
    from torch.export import ExportedProgram

_REMEDY = "Leave this step out for this model"


def capture(
    model: torch.nn.Module, signature: Signature, release: Release | None = None
) -> Program:
    """Export a model in eval mode, with dynamic batch and length as far as the model allows.

    The program shares the model's tensors. Linears and attention stay whole, as operators of their
    own; no operator works in place.
    """
    name = type(model).__name__
    flat = cpuaccel.flatten(model, signature.tensors, signature.constants)
    with engine_errors("torch.export", model, _REMEDY), quiet_export():
        exported = export_open(
            lambda example: _export(flat, example, signature), _is_fixed, flat, signature
        )
        if any(_is_in_place(node) for node in exported.graph.nodes):
            exported = exported.run_decompositions({})  # only makes operators functional
    outputs = exported.graph_signature
    if outputs.buffers_to_mutate or outputs.user_inputs_to_mutate:
        raise BackendError(f"{name} changes its own buffers or inputs when it is called", _REMEDY)
    if any(node.op == "get_attr" for node in exported.graph.nodes):
        raise BackendError(
            f"{name} has parts under autocast or gradient settings of their own, which torch "
            f"{torch.__version__} exports as nested graphs",
            _REMEDY,
        )
    return _program(exported, signature.tensors, release)


def _export(
    flat: torch.nn.Module, example: Mapping[str, torch.Tensor], signature: Signature
) -> "ExportedProgram":
    from torch.export import export

    return export(
        flat,
        tuple(example.values()),
        dynamic_shapes=tuple(axes or None for axes in open_axes(signature).values()),
        strict=False,
    )


def _is_fixed(exported: "ExportedProgram", name: str, axis: int) -> bool:
    return any(
        node.name == name and fixed_size(shape(node)[axis]) is not None
        for node in exported.graph.nodes
    )


def _program(
    exported: "ExportedProgram", input_names: Sequence[str], release: Release | None
) -> Program:
    signature = exported.graph_signature
    tensor_names = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    tensors = {**exported.constants, **exported.state_dict}
    program = Program(Graph(), {}, release)
    copies: dict[Node, Node] = {}
    names = iter(input_names)
    for node in exported.graph.nodes:
        if node.op == "placeholder" and node.name in tensor_names:
            tensor = tensors[tensor_names[node.name]].detach()
            copies[node] = program.add_tensor(tensor, node.name)
        else:
            copies[node] = program.graph.node_copy(node, copies.__getitem__)
            if node.op == "placeholder":
                copies[node].target = next(names)
    return program


def _is_in_place(node: Node) -> bool:
    target = node.target
    return isinstance(target, torch._ops.OpOverload) and target._schema.is_mutable
