"""Attention to a single key, for which OpenVINO compiles kernels that are wrong for more keys."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    import openvino

UNFUSED = {"SNIPPETS_MODE": "DISABLE"}
"""The setting with which OpenVINO runs a product, a softmax and a product one after another."""

KEY = 1
"""The input of an attention operator that has the keys."""


def attends_to_one_key(model: "openvino.Model", example: Mapping[str, torch.Tensor]) -> bool:
    """Whether a softmax whose number of elements may vary has one element for the example.

    In 2026.4 the fused kernel is made for the sizes of the first call, and returns wrong outputs
    later where that call had one key and a later one has eight or more.
    """
    if not any(_is_open(op) for op in model.get_ops()):
        return False
    static = model.clone()
    sizes = {
        port: list(example[name].shape)
        for port in static.inputs
        for name in port.get_names() & example.keys()
    }
    try:
        static.reshape(sizes)
    except RuntimeError:  # the converter read an operator otherwise than torch: nothing is known
        return True
    names = {op.get_friendly_name() for op in model.get_ops() if _is_open(op)}
    return any(str(_keys(op)) == "1" for op in static.get_ops() if op.get_friendly_name() in names)


def _is_open(op: "openvino.Node") -> bool:
    keys = _keys(op)
    return keys is not None and keys.is_dynamic


def _keys(op: "openvino.Node") -> "openvino.Dimension | None":
    """Return the number of keys of an attention operator or a softmax; None for another."""
    kind = op.get_type_name()
    if kind == "ScaledDotProductAttention":
        shape, axis = op.input_value(KEY).get_partial_shape(), -2
    elif kind in {"Softmax", "SoftMax"}:
        shape, axis = op.get_output_partial_shape(0), op.get_attributes()["axis"]
    else:
        return None
    return shape[axis] if shape.rank.is_static else None
