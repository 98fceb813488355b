"""From an eager module to a graph of aten operators, with ``torch.export``."""

import warnings

import torch
from torch.fx import Graph, Node

import cpuaccel
from cpuaccel import BackendError, Signature
from cpuaccel_plugins.aten_graph.program import Program
from cpuaccel_plugins.common.engine_errors import engine_errors
from cpuaccel_plugins.common.open_sizes import at_least_two, open_axes

LEAVE_OUT = "Leave onednn out for this model"


def capture(model: torch.nn.Module, signature: Signature) -> Program:
    """Export a model for batches and lengths of any size, as far as it allows them.

    Linears and attention stay whole: they are operators of their own in the graph, in which no
    operator changes a tensor in place.

    Args:
        model: in eval mode; its tensors are shared, not copied.
        signature: how it is called; ``signature.axes`` are the sizes to leave open.

    Raises:
        BackendError: ``torch.export`` can't take the model, or the model changes its own state.
    """
    from torch.export import export

    flat = cpuaccel.flatten(model, signature.tensors, signature.constants)
    example = at_least_two(signature)
    with engine_errors("torch.export", model, LEAVE_OUT), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of its own deprecations
        exported = export(
            flat,
            tuple(example.values()),
            dynamic_shapes=tuple(axes or None for axes in open_axes(signature).values()),
            strict=False,
        )
        if any(_is_in_place(node) for node in exported.graph.nodes):
            exported = exported.run_decompositions({})  # decomposes nothing, but that
    signature_of_graph = exported.graph_signature
    if signature_of_graph.buffers_to_mutate or signature_of_graph.user_inputs_to_mutate:
        raise BackendError(
            f"{type(model).__name__} changes its own buffers or its inputs when it is called",
            LEAVE_OUT,
        )
    nested = [n.target for n in exported.graph.nodes if n.op == "get_attr"]
    if nested:
        raise BackendError(
            f"{type(model).__name__} has parts under settings of their own, which torch "
            f"{torch.__version__} exports as graphs within the graph",
            LEAVE_OUT,
        )
    held = {
        **signature_of_graph.inputs_to_parameters,
        **signature_of_graph.inputs_to_buffers,
        **signature_of_graph.inputs_to_lifted_tensor_constants,
    }
    tensors = {**exported.constants, **exported.state_dict}
    program = Program(Graph(), {})
    copies: dict[Node, Node] = {}
    names = iter(example)
    for node in exported.graph.nodes:
        if node.op == "placeholder" and node.name in held:
            tensor = tensors[held[node.name]].detach()
            copies[node] = program.hold(tensor, node.name)
        else:
            copies[node] = program.graph.node_copy(node, copies.__getitem__)
            if node.op == "placeholder":
                copies[node].target = next(names)
    return program


def _is_in_place(node: Node) -> bool:
    target = node.target
    return isinstance(target, torch._ops.OpOverload) and target._schema.is_mutable
