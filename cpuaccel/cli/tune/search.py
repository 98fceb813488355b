"""A search with its progress on stderr, for every command that takes ``auto``."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from cpuaccel.building.settings import BuildSettings
from cpuaccel.cli.tune.live import show_progress
from cpuaccel.model.signature import Inputs
from cpuaccel.optimized import OptimizedModel
from cpuaccel.plugin.host import host
from cpuaccel.tuning.auto import optimize_auto
from cpuaccel.tuning.decisions.result import Tuning
from cpuaccel.tuning.request import Request, TuneArguments


def search(
    name: str,
    model: torch.nn.Module,
    batches: Sequence[Inputs],
    arguments: TuneArguments,
    settings: BuildSettings,
    *,
    locked: bool = False,
    json: bool,
) -> tuple[OptimizedModel, Tuning]:
    """Search for the fastest pipeline, and build it.

    Args:
        name: MODEL, for the results so far if the search does not finish.
        model: in the precision that outputs are compared with.
        batches: example inputs, each as frequent as the others.
        arguments: see ``cpuaccel.tuning.request.TuneArguments``.
        settings: of the builds.
        locked: use the decision of the lock file, and never search.
        json: whether results so far are printed as JSON.

    Raises:
        LockError: the lock file can't be used or, if ``locked``, does not fit.
    """
    request = replace(Request.from_arguments(model, arguments, settings), locked=locked)
    with show_progress(name, host(), json=json) as progress:
        optimized = optimize_auto(model, list(batches), request, progress)
    tuning = optimized.report.tuning
    assert isinstance(tuning, Tuning)
    return optimized, tuning
