"""From an OpenVINO model to one in 8 bits, with NNCF, without telling anyone."""

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
    """Quantize weights by channel and activations by tensor, as NNCF does for transformers.

    Where the processor has AMX, convolutions in groups stay in float32: in 8 bits OpenVINO 2026.4
    answers wrongly there (Wav2Vec2's, by a third, where it is off by a fiftieth without AMX).

    Args:
        converted: in float32.
        samples: what it is called with to see the ranges of activations.
        host: where it will run.
        model: the original, for errors.

    Raises:
        BackendError: NNCF does not take it.
    """
    # It draws bars on standard output; whoever runs cpuaccel has not asked for them.
    with telemetry_off(), contextlib.redirect_stdout(io.StringIO()):
        import nncf

        nncf.set_log_level(logging.ERROR)
        data = nncf.Dataset(
            [{name: _readable(tensor) for name, tensor in sample.items()} for sample in samples]
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


def _readable(tensor: torch.Tensor) -> np.ndarray:
    """For numpy, which has no bfloat16; the model to be quantized is in float32."""
    return (tensor.float() if tensor.dtype is torch.bfloat16 else tensor).numpy()
