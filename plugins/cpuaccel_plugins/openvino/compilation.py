"""Compiling an OpenVINO model for the CPU."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from cpuaccel_plugins.common.engine_errors import engine_errors, leave_out

if TYPE_CHECKING:
    import openvino

PRECISIONS = {torch.float32: "f32", torch.bfloat16: "bf16"}
"""Supported precisions, with their names in INFERENCE_PRECISION_HINT."""


def compile_for_cpu(
    converted: "openvino.Model",
    precision: torch.dtype,
    model: torch.nn.Module,
    backend: str,
    cache_dir: Path | None,
) -> "openvino.CompiledModel":
    """Compile for low latency, with as many threads as torch uses.

    Args:
        converted: the model.
        precision: one of ``PRECISIONS``.
        model: the original, for errors.
        backend: the backend's name, for errors.
        cache_dir: OpenVINO's cache of compiled models.

    Raises:
        BackendError: OpenVINO can't compile the model.
    """
    import openvino

    settings: dict[str, str | int | bool] = {
        "INFERENCE_PRECISION_HINT": PRECISIONS[precision],
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        # Pinned threads and torch's threads would wait for each other on the same cores.
        "ENABLE_CPU_PINNING": False,
    }
    if cache_dir is not None:
        settings["CACHE_DIR"] = str(cache_dir)
    with engine_errors("OpenVINO's compile_model", model, leave_out(backend)):
        return openvino.Core().compile_model(converted, "CPU", settings)
