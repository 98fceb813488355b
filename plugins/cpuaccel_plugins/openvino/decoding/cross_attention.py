"""Keys and values of cross-attention as inputs of a graph: they are computed once for a text."""

import re
from typing import TYPE_CHECKING

import numpy as np
import torch
from transformers.cache_utils import DynamicCache, DynamicLayer

from cpuaccel import BackendError

if TYPE_CHECKING:
    import openvino

SOURCE, SOURCE_MASK = "encoder_hidden_states", "encoder_attention_mask"
"""Inputs that some graphs have: the encoder's output, shape (batch, length, size), and its mask,
shape (batch, length)."""

NAMES = {
    "decoder_input_ids": "input_ids",
    "decoder_attention_mask": "attention_mask",
    "decoder_position_ids": "position_ids",
    "attention_mask": SOURCE_MASK,
    "encoder_outputs.last_hidden_state": SOURCE,
}
"""The inputs of an encoder-decoder's graph, by the names that the exporter gives them."""

VARIABLE = re.compile(r"\.cross_attention_cache\.layers\.(\d+)\.(keys|values)output\.")
"""What the exporter names a variable of cross-attention."""


def name_of(layer: int | str, kind: str) -> str:
    """The name of an input with a layer's keys or values, shape (batch, heads, length, size)."""
    return f"cross_attention.{layer}.{kind}"


def read_from_inputs(model: "openvino.Model") -> None:
    """Give an exported encoder-decoder the inputs of a decoder, and those of cross-attention.

    As variables, which the exporter makes of them, they would be copied in each step.
    """
    from openvino import PartialShape, opset13

    inputs = [(port, NAMES.get(port.get_any_name())) for port in model.inputs]
    for port, name in inputs:
        if not port.get_target_inputs():
            model.remove_parameter(port.get_node())
        elif name is not None:
            port.get_tensor().set_names({name})
    for result in model.get_results():
        if "logits" not in result.output(0).get_names():
            model.remove_result(result)
    assigned = {sink.get_variable_id(): sink for sink in model.get_sinks()}
    variables = {v.get_info().variable_id: v for v in model.get_variables()}
    for node in model.get_ordered_ops():
        if node.get_type_name() != "ReadValue":
            continue
        found = VARIABLE.search(node.get_variable_id())
        if found is None:
            continue
        shape = node.get_output_partial_shape(0)
        parameter = opset13.parameter(PartialShape([-1, shape[1], -1, shape[3]]), np.float32)
        parameter.output(0).get_tensor().set_names({name_of(found[1], found[2])})
        model.add_parameters([parameter])
        for reader in node.output(0).get_target_inputs():
            reordered = reader.get_node()  # by beam_idx, as the cache that is passed already is
            reordered.output(0).replace(parameter.output(0))
        model.remove_sink(assigned[node.get_variable_id()])
        model.remove_variable(variables[node.get_variable_id()])
    model.validate_nodes_and_infer_types()


def cross_context(
    cache: DynamicCache,
    source: torch.Tensor | None,
    mask: torch.Tensor | None,
    inputs: set[str],
) -> dict[str, torch.Tensor]:
    """What a step reads besides its tokens, by the names of the graph's inputs.

    Args:
        cache: of cross-attention; its tensors are cast to float32 once.
        source: the encoder's output.
        mask: of the encoder's output; None if all of it is real.
        inputs: that the graph has.

    Raises:
        BackendError: the shapes don't belong together.
    """
    named: dict[str, torch.Tensor] = {}
    for index, layer in enumerate(cache.layers):
        assert isinstance(layer, DynamicLayer)
        assert layer.keys is not None
        assert layer.values is not None
        layer.keys, layer.values = layer.keys.float(), layer.values.float()
        named[name_of(index, "keys")] = layer.keys
        named[name_of(index, "values")] = layer.values
    rows, _, length, _ = named[name_of(0, "keys")].shape
    if SOURCE_MASK in inputs:
        if mask is None:
            mask = torch.ones(rows, length, dtype=torch.int64)
        named[SOURCE_MASK] = mask.long()
    if SOURCE in inputs:
        if source is None:
            raise BackendError("the encoder's output is not passed")
        named[SOURCE] = source.float()
    # OpenVINO would read past the end of smaller tensors.
    for name, tensor in named.items():
        sizes = tuple(tensor.shape[:2] if name in (SOURCE, SOURCE_MASK) else tensor.shape[::2])
        if sizes != (rows, length):
            raise BackendError(
                f"{name} has the shape {tuple(tensor.shape)}, not {rows} rows of length {length}"
            )
    return named
