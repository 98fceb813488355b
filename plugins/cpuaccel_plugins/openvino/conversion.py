"""Converting a torch module to an OpenVINO model, without telemetry."""

import warnings
from typing import TYPE_CHECKING

import torch

import cpuaccel
from cpuaccel import Signature
from cpuaccel_plugins.common.engine_errors import engine_errors, leave_out
from cpuaccel_plugins.common.weight_dtypes import weight_dtypes
from cpuaccel_plugins.openvino.telemetry import telemetry_off

if TYPE_CHECKING:
    import openvino


def convert(model: torch.nn.Module, signature: Signature, backend: str) -> "openvino.Model":
    """Convert a model in float32, with dynamic batch and length and shared weights.

    Args:
        model: an eager module in float32 or bfloat16; not modified.
        signature: the example inputs.
        backend: the backend's name, for errors.

    Returns:
        A model with one input per tensor of the signature, floating ones in float32, and one
        output per tensor of the model's output.

    Raises:
        BackendError: OpenVINO can't convert the model.
    """
    if torch.bfloat16 in weight_dtypes(model):
        model = cpuaccel.shared_copy(model, torch.float32)
        signature = signature.cast(torch.float32)
    flat = cpuaccel.flatten(model, signature.tensors, signature.constants)
    example = signature.tensor_inputs
    with warnings.catch_warnings(), telemetry_off():
        # The trace's warnings: cpuaccel compares outputs to find what is frozen.
        warnings.simplefilter("ignore")
        import openvino

        with engine_errors("openvino.convert_model", model, leave_out(backend)):
            return openvino.convert_model(flat, example_input=example)
