"""Run PyTorch and Transformers models fast on CPUs.

    import cpuaccel
    fast = cpuaccel.optimize(model, backends=["ipex", "jit"])
    fast(**batch)               # same call, same outputs, faster
    print(fast.report)          # what was applied, what was not and why, differences, speed

Importing this package imports nothing else: names are imported when they are first used.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cpuaccel.api import backends, load, optimize
    from cpuaccel.errors import (
        ArtifactError,
        BackendError,
        CpuaccelError,
        ForkError,
        LockError,
        ModelError,
        PipelineError,
        SignatureError,
        StepError,
        describe_error,
    )
    from cpuaccel.model.copying import shared_copy
    from cpuaccel.model.flatten import flatten
    from cpuaccel.model.precision import dtype_name
    from cpuaccel.model.released_weights import Release
    from cpuaccel.model.signature import Signature
    from cpuaccel.optimized import OptimizedModel
    from cpuaccel.pipeline import Options, Pipeline, Step
    from cpuaccel.planning.plan import Plan, explain
    from cpuaccel.plugin.backend import Applied, Backend, Context, Evidence, Form
    from cpuaccel.plugin.hookspecs import hookimpl
    from cpuaccel.plugin.host import Host, host
    from cpuaccel.plugin.manager import plugin_host
    from cpuaccel.plugin.verdict import Verdict
    from cpuaccel.report import Outcome, Report

__version__ = "0.1.0"

_HOMES = {
    "cpuaccel.api": ("backends", "load", "optimize"),
    "cpuaccel.plugin.backend": ("Applied", "Backend", "Context", "Evidence", "Form"),
    "cpuaccel.errors": (
        "ArtifactError",
        "BackendError",
        "CpuaccelError",
        "ForkError",
        "LockError",
        "ModelError",
        "PipelineError",
        "SignatureError",
        "StepError",
        "describe_error",
    ),
    "cpuaccel.model.flatten": ("flatten",),
    "cpuaccel.plugin.hookspecs": ("hookimpl",),
    "cpuaccel.plugin.host": ("Host", "host"),
    "cpuaccel.optimized": ("OptimizedModel",),
    "cpuaccel.pipeline": ("Options", "Pipeline", "Step"),
    "cpuaccel.planning.plan": ("Plan", "explain"),
    "cpuaccel.plugin.manager": ("plugin_host",),
    "cpuaccel.model.precision": ("dtype_name",),
    "cpuaccel.model.released_weights": ("Release",),
    "cpuaccel.report": ("Outcome", "Report"),
    "cpuaccel.model.copying": ("shared_copy",),
    "cpuaccel.model.signature": ("Signature",),
    "cpuaccel.plugin.verdict": ("Verdict",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "Applied",
    "ArtifactError",
    "Backend",
    "BackendError",
    "Context",
    "CpuaccelError",
    "Evidence",
    "ForkError",
    "Form",
    "Host",
    "LockError",
    "ModelError",
    "OptimizedModel",
    "Options",
    "Outcome",
    "Pipeline",
    "PipelineError",
    "Plan",
    "Release",
    "Report",
    "Signature",
    "SignatureError",
    "Step",
    "StepError",
    "Verdict",
    "backends",
    "describe_error",
    "dtype_name",
    "explain",
    "flatten",
    "hookimpl",
    "host",
    "load",
    "optimize",
    "plugin_host",
    "shared_copy",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'cpuaccel' has no attribute {name!r}")
    value: object = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
