"""Exporting a torch module to an ONNX model in memory, with separate weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

import cpuaccel
from cpuaccel import Signature
from cpuaccel_plugins.common.engine_errors import engine_errors, leave_out
from cpuaccel_plugins.common.open_sizes import export_open, open_axes
from cpuaccel_plugins.common.quiet import quiet_export

if TYPE_CHECKING:
    import onnx_ir

INLINE_BYTES = 1024
"""Smaller constants stay in the graph, where optimization passes read their values."""


@dataclass(frozen=True)
class Exported:
    """An ONNX model; without weights, ``graph`` is far below ONNX's limit of 2 GiB."""

    graph: bytes
    weights: dict[str, torch.Tensor]  # shared with torch unless the exporter transforms them
    operators: frozenset[str]


def export(model: torch.nn.Module, signature: Signature) -> Exported:
    """Export a module in float32 with dynamic batch and length."""
    eager = _with_eager_attention(model)
    flat = cpuaccel.flatten(eager, signature.tensors, signature.constants)
    remedy = leave_out("onnxruntime")
    with (
        quiet_export(),
        # The exporter wraps the model's error in a page of advice.
        engine_errors("torch.onnx.export", eager, remedy, innermost=True),
    ):
        exported = export_open(
            lambda example: _export(flat, example, signature), _is_fixed, flat, signature
        )
        return separate_weights(exported)


def _export(
    flat: torch.nn.Module, example: Mapping[str, torch.Tensor], signature: Signature
) -> "onnx_ir.Model":
    program = torch.onnx.export(
        flat,
        kwargs=dict(example),
        input_names=list(signature.tensors),
        dynamic_shapes=open_axes(signature),
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    return program.model


def _is_fixed(model: "onnx_ir.Model", name: str, axis: int) -> bool:
    shapes = (value.shape for value in model.graph.inputs if value.name == name)
    return any(shape is not None and isinstance(shape[axis], int) for shape in shapes)


def has_fused_attention(model: torch.nn.Module) -> bool:
    """Whether a model uses torch's fused attention; eager attention is exported for it."""
    return getattr(getattr(model, "config", None), "_attn_implementation", None) == "sdpa"


def _with_eager_attention(model: torch.nn.Module) -> torch.nn.Module:
    """Switch to eager attention on the same weights."""
    # Guards for fully masked rows in the export of fused attention prevent fusions: up to a fifth
    # of a small model's time.
    if not has_fused_attention(model):
        return model
    copied = cpuaccel.shared_copy(model)
    if hasattr(copied, "set_attn_implementation"):
        copied.set_attn_implementation("eager")  # type: ignore[operator]
    return copied


def separate_weights(model: "onnx_ir.Model") -> Exported:
    """Take the larger constants out of a model."""
    import onnx_ir

    _rename_returned_inputs(model.graph)
    weights: dict[str, torch.Tensor] = {}
    for name, value in model.graph.initializers.items():
        constant = value.const_value
        if constant is None or constant.nbytes <= INLINE_BYTES:
            continue
        weights[name] = torch.from_numpy(constant.numpy()).contiguous()
        value.const_value = onnx_ir.ExternalTensor(
            "in memory",
            0,
            constant.nbytes,
            constant.dtype,
            shape=onnx_ir.Shape(weights[name].shape),
            name=name,
        )
    graph: bytes = onnx_ir.to_proto(model).SerializeToString()
    return Exported(graph, weights, frozenset(node.op_type for node in model.graph.all_nodes()))


def _rename_returned_inputs(graph: "onnx_ir.Graph") -> None:
    """Rename outputs with the name of an input, which make the model invalid.

    The exporter creates them where a model returns an input unchanged.
    """
    inputs = {value.name for value in graph.inputs}
    for output in graph.outputs:
        if output.name in inputs:
            output.name = f"{output.name}_returned"
