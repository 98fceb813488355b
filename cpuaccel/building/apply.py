"""Asking a backend to apply itself, and making sense of whatever comes back."""

import logging
from collections.abc import Mapping

import torch

from cpuaccel.building.global_settings import settings_kept
from cpuaccel.building.stage import calling
from cpuaccel.errors import BackendError
from cpuaccel.pipeline import Options
from cpuaccel.plugin.backend import Applied, Backend, Context
from cpuaccel.plugin.slow import warn_if_slow
from cpuaccel.report import Outcome, Status

logger = logging.getLogger("cpuaccel")


def ask_to_apply(
    backend: Backend[Options],
    model: torch.nn.Module,
    context: Context,
    autocast: torch.dtype | None,
    restored: list[str],
) -> Applied | Outcome:
    """What ``apply`` returns, or the outcome of a step that failed.

    Args:
        backend: asked once, with global settings put back afterwards.
        model: in the form that it takes.
        context: see ``Backend.apply``.
        autocast: the dtype that the model has to be called under, None for none.
        restored: gets the names of the settings that were put back.
    """
    name = backend.name
    try:
        with (
            warn_if_slow(f"{name} is being applied"),
            settings_kept() as changed,
            calling(autocast),
        ):
            applied = backend.apply(model, context)
    except BackendError as error:
        return Outcome(name, Status.FAILED, error.reason, error.remedy)
    except (Exception, SystemExit) as error:  # some engines exit when imported
        logger.debug("%s failed", name, exc_info=True)
        reason = f"it raised {type(error).__name__}: {error}"
        return Outcome(name, Status.FAILED, reason, "Leave the step out, or report this")
    restored += changed
    if mistake := _mistake(applied):
        return Outcome(name, Status.FAILED, mistake, "Report this to the plugin's author")
    return applied


def _mistake(applied: object) -> str:
    """What is wrong with what a backend's ``apply`` returned, if anything is."""
    if not isinstance(applied, Applied):
        return f"its apply returned a {type(applied).__name__} in place of an Applied"
    if not callable(applied.model):
        return f"its apply gave a {type(applied.model).__name__} as the model, and none to call"
    if not isinstance(applied.evidence, Mapping):
        return f"its evidence is a {type(applied.evidence).__name__} in place of a mapping"
    return ""
