"""The weights of an exported decoder: compressed to few bits, and their size."""

import enum
import math
from typing import TYPE_CHECKING

import torch

from cpuaccel_plugins.common.engine_errors import engine_errors, leave_out
from cpuaccel_plugins.openvino.quantization import quiet_nncf

if TYPE_CHECKING:
    import openvino

GROUP = 32
"""Inputs of a linear that share a scale in 4 bits."""


class Weights(enum.StrEnum):
    """How the weights of linears and embeddings are stored for ``generate``."""

    FLOAT = "float"
    """In the pipeline's precision."""
    INT8 = "int8"
    """In 8 bits, with a scale for each output."""
    INT4 = "int4"
    """In 4 bits, with a scale for each output and 32 inputs; embedding and head in 8 bits."""


def compress(
    exported: "openvino.Model", weights: Weights, model: torch.nn.Module, backend: str
) -> "openvino.Model":
    """Compress weights with NNCF, which needs no samples for it."""
    if weights is Weights.FLOAT:
        return exported
    with quiet_nncf():
        import nncf

        with engine_errors("nncf.compress_weights", model, leave_out(backend)):
            if weights is Weights.INT8:
                return nncf.compress_weights(exported, mode=nncf.CompressWeightsMode.INT8_SYM)
            return nncf.compress_weights(
                exported, mode=nncf.CompressWeightsMode.INT4_SYM, group_size=GROUP
            )


def bytes_per_step(exported: "openvino.Model", chosen_experts: int) -> int:
    """Bytes of the weights that products with a step's activations read.

    Args:
        exported: a decoder.
        chosen_experts: of each mixture, for one token.
    """
    constants: dict[str, float] = {}
    for product in exported.get_ordered_ops():
        if product.get_type_name() != "MatMul":
            continue
        weight = product.input_value(1)
        shape = weight.get_partial_shape()
        if shape.is_dynamic:  # scores of attention
            continue
        experts = shape[0].get_length() if len(shape) == 3 else 1
        share = min(1.0, chosen_experts / experts) if experts > 1 else 1.0
        for constant in _constants(weight.get_node()):
            constants[constant.get_friendly_name()] = share * _nbytes(constant)
    return round(sum(constants.values()))


def _constants(node: "openvino.Node") -> "list[openvino.Node]":
    """The constants that a weight is computed from."""
    if node.get_type_name() == "Constant":
        return [node]
    return [c for value in node.input_values() for c in _constants(value.get_node())]


def _nbytes(constant: "openvino.Node") -> float:
    bits: int = constant.get_element_type().bitwidth
    shape: list[int] = constant.get_output_shape(0)
    return math.prod(shape) * bits / 8
