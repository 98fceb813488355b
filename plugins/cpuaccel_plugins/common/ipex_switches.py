"""IPEX's process-wide switches for the fusions that it makes when a trace runs."""

import sys

import torch

from cpuaccel import BackendError

MODULE = "intel_extension_for_pytorch"


def require_ipex_fusions(model: torch.nn.Module) -> dict[str, str]:
    """Refuse a model with modules of IPEX where its graph fusions are switched off.

    Returns:
        Evidence of those fusions that are switched off one by one.
    """
    engine = sys.modules.get(MODULE)
    if engine is None or not any(type(m).__module__.startswith(MODULE) for m in model.modules()):
        return {}
    switches = engine._C
    if not switches.get_jit_opt():
        raise BackendError(
            "IPEX's graph fusions are switched off in this process",
            "Call intel_extension_for_pytorch.enable_onednn_fusion(True), or leave jit out",
        )
    off = [
        name
        for name, is_on in (
            ("concat linear", switches.get_jit_concat_linear),
            ("linear repack", switches.get_jit_linear_repack),
        )
        if not is_on()
    ]
    return {"ipex_switched_off": ", ".join(off)} if off else {}
