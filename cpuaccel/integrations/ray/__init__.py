"""Optimized models in Ray Data and Ray Serve.

Example:

    from cpuaccel.integrations import ray as accelerated

    out = ds.map_batches(
        accelerated.Embed,
        fn_constructor_kwargs={"model": folder, "column": "text", "to": "embedding"},
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=4),
        num_cpus=2,
        batch_size=4096,
    )

Importing this imports no torch, so that workers set their threads before engines are imported.
"""

from cpuaccel.integrations.ray.data import Classify as Classify
from cpuaccel.integrations.ray.data import ClassifyTokens as ClassifyTokens
from cpuaccel.integrations.ray.data import Embed as Embed
from cpuaccel.integrations.ray.data import Generate as Generate
from cpuaccel.integrations.ray.planning import WorkerPlan as WorkerPlan
from cpuaccel.integrations.ray.planning import plan as plan
from cpuaccel.integrations.ray.reports import JobReport as JobReport
from cpuaccel.integrations.ray.reports import report as report
from cpuaccel.integrations.ray.sharing import Shared as Shared
from cpuaccel.integrations.ray.sharing import share as share
