"""Quantizing an OpenVINO model to 8 bits with NNCF, without telemetry."""

import contextlib
import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from cpuaccel import BackendError, Host, Signature, describe_error, dtype_name
from cpuaccel_plugins.common.engine_errors import engine_errors
from cpuaccel_plugins.common.environment import environment_variable
from cpuaccel_plugins.openvino.conversion import TELEMETRY_OFF

if TYPE_CHECKING:
    import openvino

SUMS_IN_32_BITS = frozenset({"avx512_vnni", "avx_vnni", "amx_int8", "asimd"})
"""The instruction sets with which products of 8 bits are summed in 32 bits."""

MARGIN = 0.1
"""How far values may lie outside of the samples' range, as a share of it: clipping them changes an
output by about as much as 8 bits do."""

Sample = dict[str, torch.Tensor]
"""Inputs of one row, by name."""


@contextlib.contextmanager
def quiet_nncf() -> Iterator[None]:
    """Keep what NNCF prints and logs off the terminal, and its telemetry off the network."""
    # It prints tables and progress bars on standard output.
    with environment_variable(*TELEMETRY_OFF), contextlib.redirect_stdout(io.StringIO()):
        import nncf  # noqa: F401  sets the level of its logger

        logger = logging.getLogger("nncf")
        level = logger.level
        # Its own function would change the handlers too, which may be others'.
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)


def quantize(
    converted: "openvino.Model", samples: Sequence[Sample], host: Host, model: torch.nn.Module
) -> "openvino.Model":
    """Quantize weights per channel and activations per tensor, with the preset for transformers."""
    with quiet_nncf():
        import nncf
        from nncf.quantization.advanced_parameters import (
            AdvancedQuantizationParameters,
            OverflowFix,
        )

        data = nncf.Dataset(
            [{name: _to_numpy(tensor) for name, tensor in sample.items()} for sample in samples]
        )
        with engine_errors("nncf.quantize", model, "Use openvino for this model"):
            return nncf.quantize(
                converted,
                data,
                model_type=nncf.ModelType.TRANSFORMER,
                subset_size=len(samples),
                # Elsewhere sums of two products saturate at 16 bits, unless half of the weights'
                # range is unused. NNCF's default takes care of the first convolution only.
                advanced_parameters=AdvancedQuantizationParameters(
                    overflow_fix=OverflowFix.DISABLE
                    if host.isa & SUMS_IN_32_BITS
                    else OverflowFix.ENABLE
                ),
                # With AMX, OpenVINO 2026.4 computes grouped convolutions wrongly in 8 bits
                # (Wav2Vec2: an error of a third, instead of a fiftieth without AMX).
                ignored_scope=nncf.IgnoredScope(
                    types=["GroupConvolution"] if "amx_int8" in host.isa else [], validate=False
                ),
            )


def _to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """Convert a tensor; numpy has no bfloat16, and the model is in float32."""
    return (tensor.float() if tensor.dtype is torch.bfloat16 else tensor).numpy()


def examples(signature: Signature, file: Path | None) -> list[Sample]:
    """Read samples from a safetensors file, one per row, or use the rows of the example inputs."""
    if file is None:
        return _rows(signature.tensor_inputs, signature.axes.batch)
    remedy = "Write it with safetensors.torch.save_file({'input_ids': ..., ...}, file)"
    # An optional dependency: import it only if it is needed.
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(file)
    except (OSError, SafetensorError) as error:
        reason = f"can't read calibration={str(file)!r}: {describe_error(error)}"
        raise BackendError(reason, remedy) from error
    expected = {name: tensor.dtype for name, tensor in signature.tensor_inputs.items()}
    dtypes = {name: tensor.dtype for name, tensor in tensors.items()}
    if dtypes != expected:
        raise BackendError(
            f"calibration={str(file)!r} has {_describe(dtypes)}, but the inputs are "
            f"{_describe(expected)}",
            remedy,
        )
    return _rows(tensors, tuple(tensors))


def _rows(inputs: Mapping[str, torch.Tensor], batched: tuple[str, ...]) -> list[Sample]:
    count = min((len(inputs[name]) for name in batched), default=1)
    return [
        {
            name: tensor[row : row + 1] if name in batched else tensor
            for name, tensor in inputs.items()
        }
        for row in range(count)
    ]


def value_ranges(samples: Sequence[Sample]) -> dict[str, tuple[float, float]]:
    """The values of floating-point inputs for which a model calibrated with samples is right.

    Scales of activations are those of the samples, always with 0, and larger activations are
    clipped. The least and the largest of integers say little: they may be indices.
    """
    ranges = {}
    for name, tensor in samples[0].items():
        if tensor.is_floating_point():
            bounds = [torch.aminmax(sample[name]) for sample in samples]
            low = min(0.0, *(least.item() for least, _ in bounds))
            high = max(0.0, *(largest.item() for _, largest in bounds))
            margin = MARGIN * (high - low)
            ranges[name] = (low - margin, high + margin)
    return ranges


def _describe(dtypes: Mapping[str, torch.dtype]) -> str:
    return ", ".join(f"{name} in {dtype_name(d)}" for name, d in dtypes.items()) or "nothing"
