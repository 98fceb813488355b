"""Converting a torch module to an OpenVINO model, without telemetry."""

import warnings
from typing import TYPE_CHECKING

import torch

import cpuaccel
from cpuaccel import Signature
from cpuaccel_plugins.common.engine_errors import engine_errors, leave_out
from cpuaccel_plugins.common.environment import environment_variable
from cpuaccel_plugins.common.properties import unread_properties
from cpuaccel_plugins.common.weight_dtypes import weight_dtypes
from cpuaccel_plugins.openvino.errors import describe_openvino_error
from cpuaccel_plugins.openvino.padded_rows import zero_padded_rows

if TYPE_CHECKING:
    import openvino


TELEMETRY_OFF = ("CI", "true")
"""The variable with which OpenVINO and NNCF send no telemetry; it is on by default."""


def convert(model: torch.nn.Module, signature: Signature, backend: str) -> "openvino.Model":
    """Convert a model in float32, with dynamic batch and length and shared weights.

    The result has one input per tensor of the signature, floating ones in float32, and one output
    per tensor of the model's output.
    """
    if torch.bfloat16 in weight_dtypes(model):
        model = cpuaccel.shared_copy(model, torch.float32)
        signature = signature.cast(torch.float32)
    flat = cpuaccel.flatten(model, signature.tensors, signature.constants)
    example = signature.tensor_inputs
    # The trace's warnings: cpuaccel compares outputs to find what is frozen.
    with warnings.catch_warnings(action="ignore"), environment_variable(*TELEMETRY_OFF):
        import openvino

        describe = describe_openvino_error
        with (
            engine_errors("openvino.convert_model", model, leave_out(backend), describe=describe),
            unread_properties(flat),
        ):
            converted = openvino.convert_model(flat, example_input=example)
            zero_padded_rows(converted)
            return converted
