"""Quantizing an OpenVINO model to 8 bits with NNCF, without telemetry."""

import contextlib
import io
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from cpuaccel import Host
from cpuaccel_plugins.common.engine_errors import engine_errors
from cpuaccel_plugins.openvino.calibration import Sample
from cpuaccel_plugins.openvino.telemetry import telemetry_off

if TYPE_CHECKING:
    import openvino


def quantize(
    converted: "openvino.Model", samples: Sequence[Sample], host: Host, model: torch.nn.Module
) -> "openvino.Model":
    """Quantize weights per channel and activations per tensor, with NNCF's preset for transformers.

    On processors with AMX, grouped convolutions stay in float32: OpenVINO 2026.4 computes them
    wrongly in 8 bits (Wav2Vec2: an error of a third, instead of a fiftieth without AMX).

    Args:
        converted: the model in float32.
        samples: inputs for the ranges of activations.
        host: this machine.
        model: the original, for errors.

    Raises:
        BackendError: NNCF can't quantize the model.
    """
    # NNCF prints progress bars on standard output.
    with telemetry_off(), contextlib.redirect_stdout(io.StringIO()):
        import nncf

        nncf.set_log_level(logging.ERROR)
        data = nncf.Dataset(
            [{name: _to_numpy(tensor) for name, tensor in sample.items()} for sample in samples]
        )
        with engine_errors("nncf.quantize", model, "Use openvino for this model"):
            return nncf.quantize(
                converted,
                data,
                model_type=nncf.ModelType.TRANSFORMER,
                subset_size=len(samples),
                ignored_scope=nncf.IgnoredScope(
                    types=["GroupConvolution"] if "amx_int8" in host.isa else [], validate=False
                ),
            )


def _to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """Convert a tensor; numpy has no bfloat16, and the model is in float32."""
    return (tensor.float() if tensor.dtype is torch.bfloat16 else tensor).numpy()
