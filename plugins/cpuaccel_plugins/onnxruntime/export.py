"""From a torch module to an ONNX model in memory, its weights beside it."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

import cpuaccel
from cpuaccel import Signature
from cpuaccel_plugins.common.engine_errors import engine_errors, leave_out
from cpuaccel_plugins.common.open_sizes import at_least_two, open_axes

if TYPE_CHECKING:
    import onnx_ir

INLINE_BYTES = 1024
"""Smaller constants stay in the graph, where passes that look at values find them."""


@dataclass(frozen=True)
class Exported:
    """An ONNX model without its weights.

    Attributes:
        graph: the serialized model. Without the weights it is far below the 2 GiB that one
            may have.
        weights: by name, shared with the torch module where the exporter left them as they were.
        operators: types of the nodes.
    """

    graph: bytes
    weights: dict[str, torch.Tensor]
    operators: frozenset[str]


def export(model: torch.nn.Module, signature: Signature) -> Exported:
    """Export a model for batches and lengths of any size, as far as it allows them.

    Args:
        model: in eval mode, in float32; stays as it is.
        signature: how it is called.

    Raises:
        BackendError: the exporter does not take it.
    """
    model = _with_eager_attention(model)
    flat = cpuaccel.flatten(model, signature.tensors, signature.constants)
    remedy = leave_out("onnxruntime")
    with (
        warnings.catch_warnings(),
        _quiet(),
        # The exporter wraps what the model raises in a page of advice.
        engine_errors("torch.onnx.export", model, remedy, innermost=True),
    ):
        warnings.simplefilter("ignore")  # torch warns of its own deprecations
        program = torch.onnx.export(
            flat,
            kwargs=at_least_two(signature),
            input_names=list(signature.tensors),
            dynamic_shapes=open_axes(signature),
            dynamo=True,
            verbose=False,
        )
        assert program is not None
        return _taken_apart(program.model)


def _with_eager_attention(model: torch.nn.Module) -> torch.nn.Module:
    """The same weights with attention written out, where Transformers offers the choice.

    Exported, torch's fused attention brings guards for rows that are masked altogether, between
    which ONNX Runtime fuses less: measured, up to a fifth of a small model's time.
    """
    if getattr(getattr(model, "config", None), "_attn_implementation", None) != "sdpa":
        return model
    copied = cpuaccel.shared_copy(model)
    if hasattr(copied, "set_attn_implementation"):
        copied.set_attn_implementation("eager")  # type: ignore[operator]
    return copied


def _taken_apart(model: "onnx_ir.Model") -> Exported:
    import onnx_ir

    _name_apart(model.graph)
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


def _name_apart(graph: "onnx_ir.Graph") -> None:
    """Rename outputs that are called like an input: of what a model returns as it was given it.

    The exporter copies it, and calls the copy by the same name, which is no valid model.
    """
    inputs = {value.name for value in graph.inputs}
    for output in graph.outputs:
        if output.name in inputs:
            output.name = f"{output.name}_returned"


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter from telling which operators of torchvision it has no use for."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)
