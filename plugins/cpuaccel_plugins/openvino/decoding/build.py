"""From a decoder to a stepper on OpenVINO."""

import re
from typing import TYPE_CHECKING

import torch
from transformers import PreTrainedModel

from cpuaccel import BackendError, Evidence, Host, Stepper
from cpuaccel_plugins.common.engine_errors import engine_errors, leave_out
from cpuaccel_plugins.openvino.base import PRECISIONS, cpu_settings
from cpuaccel_plugins.openvino.decoding.encoder_decoder import EncoderDecoderForward
from cpuaccel_plugins.openvino.decoding.export import export
from cpuaccel_plugins.openvino.decoding.request import Variables
from cpuaccel_plugins.openvino.decoding.stepper import StatefulForward
from cpuaccel_plugins.openvino.decoding.weights import Weights, bytes_per_step, compress
from cpuaccel_plugins.openvino.errors import describe_openvino_error
from cpuaccel_plugins.openvino.runtime_graph import execution_evidence

if TYPE_CHECKING:
    import openvino

VARIABLE = re.compile(r"\.layers\.(\d+)\.(keys|values)output\.")
"""What the exporter names a variable: the names of an input and an output, one after the other."""


def make_stepper(model: torch.nn.Module, weights: Weights, backend: str, host: Host) -> Stepper:
    """Export, compress, compile and run a decoder.

    Raises:
        BackendError: the model can't be exported, or doesn't run in its precision.
    """
    assert isinstance(model, PreTrainedModel)
    config = model.config.get_text_config(decoder=True)
    of_cache = torch.bfloat16 if model.dtype is torch.bfloat16 else torch.float32
    # With few bits it costs a sixth more divergence, and OpenVINO's attention over a prompt in
    # float32 takes as long as all other products together.
    is_coarse = weights is not Weights.FLOAT and bool(host.bf16())
    precision = torch.bfloat16 if is_coarse else of_cache
    exported = compress(export(model, backend), weights, model, backend)
    variables = _variables(exported, config.num_hidden_layers)
    settings = cpu_settings(precision) | {"KV_CACHE_PRECISION": PRECISIONS[of_cache]}
    remedy, describe = leave_out(backend), describe_openvino_error
    with engine_errors("OpenVINO's compile_model", model, remedy, describe=describe):
        import openvino

        compiled = openvino.Core().compile_model(exported, "CPU", settings)
    decoder = StatefulForward(compiled, variables, model, of_cache)
    forward = EncoderDecoderForward(decoder, model) if model.config.is_encoder_decoder else decoder
    with engine_errors("OpenVINO's infer", model, remedy, describe=describe):
        forward.run_once()
    return Stepper(
        forward,
        bytes_per_step(exported, getattr(config, "num_experts_per_tok", 1)),
        {**execution_evidence(compiled, precision), **_state_evidence(compiled, weights)},
        in_4_bits=weights is Weights.INT4,
    )


def _variables(exported: "openvino.Model", layers: int) -> Variables:
    """The names of the variables with each layer's keys and values."""
    names = {}
    for variable in exported.get_variables():
        name = variable.get_info().variable_id
        if found := VARIABLE.search(name):
            names[int(found[1]), found[2]] = name
    expected = {(layer, kind) for layer in range(layers) for kind in ("keys", "values")}
    if names.keys() != expected:
        raise BackendError(
            f"the exported graph has {len(names)} variables for keys and values of {layers} layers",
            "Use onednn for this model",
        )
    return [(names[layer, "keys"], names[layer, "values"]) for layer in range(layers)]


def _state_evidence(compiled: "openvino.CompiledModel", weights: Weights) -> Evidence:
    """What is stored and computed in which form."""
    kinds = [
        node.get_rt_info()["layerType"].astype(str)
        for node in compiled.get_runtime_model().get_ops()
    ]
    evidence: dict[str, int | float | str] = {
        "kv_cache": compiled.get_property("KV_CACHE_PRECISION").to_string(),
        "attentions_in_place": kinds.count("ScaledDotProductAttention"),
    }
    if weights is not Weights.FLOAT:
        evidence["weights"] = str(weights)
        # Inputs of a product that share a scale in 8 bits; 0 where they stay in float.
        evidence["activation_group"] = int(compiled.get_property("DYNAMIC_QUANTIZATION_GROUP_SIZE"))
    return evidence
