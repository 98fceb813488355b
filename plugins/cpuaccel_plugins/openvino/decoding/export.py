"""Exporting a decoder to a graph whose keys and values are its state."""

import inspect
import threading
from typing import TYPE_CHECKING, TypeGuard

import torch
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput

import cpuaccel
from cpuaccel import BackendError
from cpuaccel_plugins.common.engine_errors import engine_errors, leave_out
from cpuaccel_plugins.common.environment import environment_variable
from cpuaccel_plugins.common.quiet import quiet_export
from cpuaccel_plugins.decoding.parts import runs_its_class
from cpuaccel_plugins.openvino.conversion import TELEMETRY_OFF
from cpuaccel_plugins.openvino.decoding.cross_attention import read_from_inputs
from cpuaccel_plugins.openvino.decoding.shared_heads import fuse_shared_heads
from cpuaccel_plugins.openvino.errors import describe_openvino_error

if TYPE_CHECKING:
    import openvino

PAST = torch.tensor([[1, 2, 3], [2, 3, 1]])
"""Tokens in the cache of the call that is traced. Sizes of 0 and 1 would become constants."""

NEW = torch.tensor([[3, 1], [1, 2]])
"""New tokens of that call."""

SOURCE_LENGTH = 7
"""Length of the encoder's output that is traced: another one than those of tokens."""

POSITIONS = "position_ids"
KEPT = "logits_to_keep"
"""Inputs that some models don't have: positions, shape (batch, tokens), and the indices of the
tokens whose logits are computed."""

_exporting = threading.Lock()
"""The exporter replaces functions of torch while it traces: two at once would not restore them."""


@torch.no_grad()
def export(model: PreTrainedModel, backend: str, *, keeps: bool = True) -> "openvino.Model":
    """Export a decoder with Transformers' own exporter, for any batch, length and state.

    Args:
        model: a decoder or an encoder-decoder in eval mode, with weights in float32 or bfloat16,
            which the result shares.
        backend: the name of the backend, for errors.
        keeps: whether the graph has the input ``logits_to_keep``, if the model has it.

    Returns:
        A graph with the inputs ``input_ids``, ``attention_mask`` (of all tokens), ``beam_idx``
        (rows of the state for each new row), and ``POSITIONS`` and ``KEPT`` where the model has
        them, and those of ``cross_attention.py`` for an encoder-decoder; its output is ``logits``.
        Each layer has two variables, its keys and its values, of shape (batch, heads, tokens, head
        size) in float32; in sliding attention too they have all tokens.

    Raises:
        BackendError: the model has hooks, or can't be exported.
    """
    name = type(model).__name__
    if not all(runs_its_class(module) for module in model.modules()):
        raise BackendError(
            f"{name} has hooks, or modules with another forward, which a graph would not call",
            "Remove them, or use onednn",
        )
    copied = cpuaccel.shared_copy(model)  # the exporter changes the model while it traces
    assert isinstance(copied, PreTrainedModel)
    _, cache = first_call(copied)
    for module in copied.modules():
        if _reads_its_weight(module):
            module.weight = torch.nn.Parameter(module.weight.float(), requires_grad=False)
    inputs = _next_call(model, keeps)
    open_size = torch.export.Dim.AUTO
    shapes: dict[str, object] = {
        key: dict.fromkeys(range(value.dim()), open_size)
        for key, value in inputs.items()
        if isinstance(value, torch.Tensor)
    }
    if "encoder_outputs" in inputs:
        shapes["encoder_outputs"] = [{0: open_size, 1: open_size}]
    inputs["past_key_values"] = cache
    tensors = sum(2 * len(part.layers) for part in parts_of(cache))
    shapes["past_key_values"] = [{0: open_size, 2: open_size}] * tensors
    # Imported here, because it imports OpenVINO.
    with _exporting, environment_variable(*TELEMETRY_OFF), quiet_export():
        from transformers.exporters.configs import OpenVINOConfig
        from transformers.exporters.exporter_openvino import OpenVINOExporter

        exporter = "Transformers' OpenVINOExporter"
        describe = describe_openvino_error
        with engine_errors(exporter, model, leave_out(backend), describe=describe):
            config = OpenVINOConfig(dynamic=True, dynamic_shapes=shapes)
            exported: openvino.Model
            exporting = OpenVINOExporter()  # type: ignore[no-untyped-call]
            exported, _ = exporting.export_program(copied, inputs, config)
    if isinstance(cache, EncoderDecoderCache):
        read_from_inputs(exported)
    fuse_shared_heads(exported)
    return exported


def _reads_its_weight(module: torch.nn.Module) -> TypeGuard[torch.nn.Embedding]:
    """Whether an embedding has a forward that indexes the weight, as Whisper's positions have.

    The exporter traces zeros for such a weight in bfloat16.
    """
    return (
        isinstance(module, torch.nn.Embedding)
        and type(module).forward is not torch.nn.Embedding.forward
        and "super" not in type(module).forward.__code__.co_names
    )


def first_call(model: PreTrainedModel) -> tuple[object, DynamicCache | EncoderDecoderCache]:
    """Call a model with ``PAST``; return its output, and the cache with these tokens."""
    cache: DynamicCache | EncoderDecoderCache = DynamicCache()
    if not model.config.is_encoder_decoder:
        return model(input_ids=PAST, past_key_values=cache, use_cache=True), cache
    cache = EncoderDecoderCache(cache, DynamicCache())
    inputs = {"decoder_input_ids": PAST, **_source(model)}
    return model(**inputs, past_key_values=cache, use_cache=True), cache


def parts_of(cache: DynamicCache | EncoderDecoderCache) -> list[DynamicCache]:
    """The cache of self-attention, and that of cross-attention if there is one."""
    if isinstance(cache, EncoderDecoderCache):
        return [cache.self_attention_cache, cache.cross_attention_cache]
    return [cache]


def _next_call(model: PreTrainedModel, keeps: bool) -> dict[str, object]:
    """The inputs of the call that is traced, without the cache."""
    parameters = inspect.signature(model.forward).parameters
    prefix = "decoder_" if model.config.is_encoder_decoder else ""
    batch, new = NEW.shape
    length = PAST.shape[1]
    inputs: dict[str, object] = {
        f"{prefix}input_ids": NEW,
        f"{prefix}attention_mask": torch.ones(batch, length + new, dtype=torch.int64),
    }
    if f"{prefix}{POSITIONS}" in parameters:
        inputs[f"{prefix}{POSITIONS}"] = torch.arange(length, length + new).repeat(batch, 1)
    if keeps and KEPT in parameters:
        inputs[KEPT] = torch.arange(new)
    return inputs | (_source(model) if prefix else {})


def _source(model: PreTrainedModel) -> dict[str, object]:
    """An encoder's output, and its mask if the model takes one."""
    rows, size = len(PAST), model.get_encoder().config.hidden_size
    output = torch.ones(rows, SOURCE_LENGTH, size, dtype=model.dtype)
    inputs: dict[str, object] = {"encoder_outputs": BaseModelOutput(output)}
    if "attention_mask" in inspect.signature(model.forward).parameters:
        inputs["attention_mask"] = torch.ones(rows, SOURCE_LENGTH, dtype=torch.int64)
    return inputs
