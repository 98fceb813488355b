"""Attention of rows that are padding only, which OpenVINO computes as NaN and torch as zero."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import openvino

MASK = 3
"""The input of an attention operator that is its mask."""


def zero_padded_rows(model: "openvino.Model") -> None:
    """Make attention return zero for queries that may attend to no key, as torch does.

    OpenVINO divides zero by zero for them, and an activation after that may hide the NaN.
    """
    from openvino import opset15 as ops

    zero = ops.constant(np.float32(0))
    attends: dict[tuple[str, int], openvino.Output] = {}
    for attention in model.get_ops():
        if attention.get_type_name() != "ScaledDotProductAttention":
            continue
        if attention.get_input_size() <= MASK:
            continue
        mask = attention.input_value(MASK)
        rank = mask.get_partial_shape().rank
        if rank.is_static and not rank.get_length():  # a scalar: no mask
            continue
        key = (mask.get_node().get_friendly_name(), mask.get_index())
        if key not in attends:
            if mask.get_element_type().is_real():  # added to the scores
                mask = ops.greater(mask, ops.constant(np.float32("-inf"))).output(0)
            attends[key] = ops.reduce_logical_or(mask, ops.constant([-1]), True).output(0)
        attended = attention.output(0)
        readers = attended.get_target_inputs()
        kept = ops.select(attends[key], attended, zero)
        for reader in readers:
            reader.replace_source_output(kept.output(0))
    model.validate_nodes_and_infer_types()
