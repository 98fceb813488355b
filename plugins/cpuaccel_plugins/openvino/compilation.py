"""From an OpenVINO model to one compiled for the CPU, with what was asked for and nothing else."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from cpuaccel_plugins.common.engine_errors import engine_errors, leave_out

if TYPE_CHECKING:
    import openvino

PRECISIONS = {torch.float32: "f32", torch.bfloat16: "bf16"}
"""What can be asked of OpenVINO here, as its INFERENCE_PRECISION_HINT spells it."""


def compile_for_cpu(
    converted: "openvino.Model",
    precision: torch.dtype,
    model: torch.nn.Module,
    backend: str,
    cache_dir: Path | None,
) -> "openvino.CompiledModel":
    """Compile for one call at a time, with as many threads as torch has.

    Args:
        converted: the model.
        precision: one of ``PRECISIONS``.
        model: the original, for errors.
        backend: the backend's name, for errors.
        cache_dir: where OpenVINO keeps compiled models; None keeps none.

    Raises:
        BackendError: OpenVINO does not take it.
    """
    import openvino

    settings: dict[str, str | int | bool] = {
        "INFERENCE_PRECISION_HINT": PRECISIONS[precision],
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        # Pinned, its threads and torch's wait for each other on the same cores.
        "ENABLE_CPU_PINNING": False,
    }
    if cache_dir is not None:
        settings["CACHE_DIR"] = str(cache_dir)
    with engine_errors("OpenVINO's compile_model", model, leave_out(backend)):
        return openvino.Core().compile_model(converted, "CPU", settings)
