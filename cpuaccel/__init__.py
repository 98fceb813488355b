"""Run PyTorch and Transformers models fast on CPUs.

    import cpuaccel
    fast = cpuaccel.optimize(model, example_inputs=batch)  # a pipeline that suits most models
    fast(**batch)                # same call, same outputs, faster
    print(fast.report)           # what was applied, what was not and why, differences, speed

    fast = cpuaccel.optimize(model, ["onednn"], example_inputs=batch)  # a pipeline of your choice

Importing this package imports nothing else: names are imported when they are first used.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # "as" makes a name public for type checkers
    from cpuaccel.api import backends as backends
    from cpuaccel.api import load as load
    from cpuaccel.api import optimize as optimize
    from cpuaccel.errors import ArtifactError as ArtifactError
    from cpuaccel.errors import BackendError as BackendError
    from cpuaccel.errors import CpuaccelError as CpuaccelError
    from cpuaccel.errors import ForkError as ForkError
    from cpuaccel.errors import LockError as LockError
    from cpuaccel.errors import ModelError as ModelError
    from cpuaccel.errors import PipelineError as PipelineError
    from cpuaccel.errors import SignatureError as SignatureError
    from cpuaccel.errors import StepError as StepError
    from cpuaccel.errors import WorkerError as WorkerError
    from cpuaccel.errors import describe_error as describe_error
    from cpuaccel.model.copying import shared_copy as shared_copy
    from cpuaccel.model.flatten import flatten as flatten
    from cpuaccel.model.precision import dtype_name as dtype_name
    from cpuaccel.model.released_weights import Release as Release
    from cpuaccel.model.signature import Signature as Signature
    from cpuaccel.optimized import OptimizedModel as OptimizedModel
    from cpuaccel.pipeline import Options as Options
    from cpuaccel.pipeline import Pipeline as Pipeline
    from cpuaccel.pipeline import Step as Step
    from cpuaccel.planning.plan import Plan as Plan
    from cpuaccel.planning.plan import explain as explain
    from cpuaccel.plugin.backend import Applied as Applied
    from cpuaccel.plugin.backend import Backend as Backend
    from cpuaccel.plugin.backend import Context as Context
    from cpuaccel.plugin.backend import Evidence as Evidence
    from cpuaccel.plugin.backend import Form as Form
    from cpuaccel.plugin.backend import Stepper as Stepper
    from cpuaccel.plugin.backend import Unload as Unload
    from cpuaccel.plugin.cache_folder import cache_folder as cache_folder
    from cpuaccel.plugin.equal_rows import equal_rows as equal_rows
    from cpuaccel.plugin.equal_rows import first_rows as first_rows
    from cpuaccel.plugin.hookspecs import hookimpl as hookimpl
    from cpuaccel.plugin.host import Host as Host
    from cpuaccel.plugin.host import host as host
    from cpuaccel.plugin.kept import Kept as Kept
    from cpuaccel.plugin.manager import plugin_host as plugin_host
    from cpuaccel.plugin.storage import CacheLayer as CacheLayer
    from cpuaccel.plugin.storage import SourceCacheLayer as SourceCacheLayer
    from cpuaccel.plugin.storage import Storage as Storage
    from cpuaccel.plugin.verdict import Verdict as Verdict
    from cpuaccel.processes.pool import ProcessPool as ProcessPool
    from cpuaccel.report import Outcome as Outcome
    from cpuaccel.report import Report as Report

__version__ = "0.2.0"

_HOMES = {
    "cpuaccel.api": "backends load optimize",
    "cpuaccel.errors": "ArtifactError BackendError CpuaccelError ForkError LockError "
    "ModelError PipelineError SignatureError StepError WorkerError describe_error",
    "cpuaccel.model.copying": "shared_copy",
    "cpuaccel.model.flatten": "flatten",
    "cpuaccel.model.precision": "dtype_name",
    "cpuaccel.model.released_weights": "Release",
    "cpuaccel.model.signature": "Signature",
    "cpuaccel.optimized": "OptimizedModel",
    "cpuaccel.pipeline": "Options Pipeline Step",
    "cpuaccel.planning.plan": "Plan explain",
    "cpuaccel.plugin.backend": "Applied Backend Context Evidence Form Stepper Unload",
    "cpuaccel.plugin.cache_folder": "cache_folder",
    "cpuaccel.plugin.equal_rows": "equal_rows first_rows",
    "cpuaccel.plugin.hookspecs": "hookimpl",
    "cpuaccel.plugin.host": "Host host",
    "cpuaccel.plugin.kept": "Kept",
    "cpuaccel.plugin.manager": "plugin_host",
    "cpuaccel.plugin.storage": "CacheLayer SourceCacheLayer Storage",
    "cpuaccel.plugin.verdict": "Verdict",
    "cpuaccel.processes.pool": "ProcessPool",
    "cpuaccel.report": "Outcome Report",
}
_HOME = {name: module for module, names in _HOMES.items() for name in names.split()}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'cpuaccel' has no attribute {name!r}")
    value: object = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
