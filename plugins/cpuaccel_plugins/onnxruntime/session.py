"""Sessions of ONNX Runtime that use torch's weights and tensors without copies."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.utils.dlpack

from cpuaccel_plugins.common.environment import environment_variable
from cpuaccel_plugins.onnxruntime.export import INLINE_BYTES, Exported

if TYPE_CHECKING:
    import onnxruntime

PROVIDER = "CPUExecutionProvider"

LEVELS = {
    "disabled": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}
"""Optimization levels, with their names in ONNX Runtime."""

_WEIGHTS_APART = "session.optimized_model_external_initializers"


def open_session(
    exported: Exported,
    optimization: str,
    *,
    profile: Path | None = None,
    optimized: Path | None = None,
) -> "onnxruntime.InferenceSession":
    """Open a session with as many threads as torch uses.

    Args:
        exported: the model. Weights that no kernel packs are read where they are.
        optimization: one of the ``LEVELS``.
        profile: a folder to write a profile to.
        optimized: a file to write the optimized model to, with the weights in a file beside it.
    """
    # Telemetry and a user identifier are on by default, from the first import on.
    with environment_variable("ORT_DISABLE_TELEMETRY", "1"):
        import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(
        onnxruntime.GraphOptimizationLevel, LEVELS[optimization]
    )
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    # Threads that spin after a call slow down torch: interleaved eager calls took twice as long.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # errors only
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile / "profile")
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
        for entry, value in (
            ("file_name", f"{optimized.name}.data"),
            ("min_size_in_bytes", str(INLINE_BYTES + 1)),
        ):
            options.add_session_config_entry(f"{_WEIGHTS_APART}_{entry}", value)
    values = [onnxruntime.OrtValue.from_dlpack(weight) for weight in exported.weights.values()]
    options.add_external_initializers(list(exported.weights), values)
    return onnxruntime.InferenceSession(exported.graph, options, providers=[PROVIDER])


Outputs = Callable[..., tuple[torch.Tensor, ...]]
"""Takes tensors by name and returns a flat tuple."""


class SessionCall:
    """Takes tensors by name, read in place, and returns a flat tuple, allocated in each call."""

    def __init__(self, session: "onnxruntime.InferenceSession") -> None:
        import onnxruntime

        self._session = session
        self._value = onnxruntime.OrtValue.from_dlpack
        self._names = tuple(port.name for port in session.get_inputs())

    def __call__(self, **inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Run the model; safe to call in several threads."""
        values = {name: self._value(inputs[name].detach().contiguous()) for name in self._names}
        return tuple(
            torch.utils.dlpack.from_dlpack(output._ortvalue.to_dlpack())
            for output in self._session.run_with_ort_values(None, values)
        )


MASK = "attention_mask"


class EagerForEmptyRows:
    """Runs the model itself for batches with a row that is all padding.

    Torch's fused attention returns zero for such a row, eager attention the mean of its values.
    """

    def __init__(self, session: Outputs, model: Outputs) -> None:
        self._session = session
        self._model = model

    def __call__(self, **inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Run the model; safe to call in several threads."""
        mask = inputs[MASK]
        if mask.dim() == 2 and not mask.any(1).all():
            return self._model(**inputs)
        return self._session(**inputs)
