"""Compiled OpenVINO models as bytes, and imported again."""

import io
from typing import TYPE_CHECKING

import torch

from cpuaccel import BackendError, Kept, Signature, dtype_name
from cpuaccel_plugins.common.environment import environment_variable
from cpuaccel_plugins.openvino.conversion import TELEMETRY_OFF
from cpuaccel_plugins.openvino.execution import CompiledCall

if TYPE_CHECKING:
    import openvino

Settings = dict[str, str | int | bool]
"""Properties of a compiled model, by name."""

_MODEL = "compiled"


def keep_compiled(
    compiled: "openvino.CompiledModel", settings: Settings, returns: torch.dtype | None
) -> Kept:
    """Export a compiled model: its graph after OpenVINO's own passes, and its weights.

    Args:
        compiled: the model.
        settings: what it was compiled with.
        returns: see ``CompiledCall``.
    """
    exported = io.BytesIO()
    compiled.export_model(exported)
    # A folder for OpenVINO's own cache is not asked about: the model is here.
    properties = {name: value for name, value in settings.items() if name != "CACHE_DIR"}
    facts = {"settings": properties, "returns": None if returns is None else dtype_name(returns)}
    return Kept({_MODEL: torch.frombuffer(exported.getbuffer(), dtype=torch.uint8)}, facts)  # type: ignore[arg-type]


def restore_compiled(kept: Kept, signature: Signature, backend: str) -> CompiledCall:
    """Import a model; OpenVINO packs its weights again, in memory of this process."""
    with environment_variable(*TELEMETRY_OFF):
        import openvino

    settings, returns = kept.facts.get("settings"), kept.facts.get("returns")
    if not isinstance(settings, dict) or returns not in (None, "bfloat16"):
        raise BackendError("its settings can't be read", "Save it again")
    # OpenVINO reads the memory and does not own it.
    exported = kept.tensors[_MODEL].numpy()
    view = openvino.Tensor(exported, shared_memory=True)
    compiled = openvino.Core().import_model(view, "CPU", settings)
    return CompiledCall(
        compiled, signature.tensors, None if returns is None else torch.bfloat16, backend, exported
    )
