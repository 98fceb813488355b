"""Loading TorchScript from a trusted artifact."""

import io
import logging
import warnings
from dataclasses import replace

import torch

from cpuaccel.artifact import layout
from cpuaccel.artifact.contents import Contents
from cpuaccel.artifact.record import Record, Script
from cpuaccel.building.stage import Stage
from cpuaccel.building.variant import SavedBuild
from cpuaccel.errors import describe_error
from cpuaccel.model.precision import dtype_of
from cpuaccel.plugin.backend import Form
from cpuaccel.report import Status

logger = logging.getLogger("cpuaccel")


def read_scripts(contents: Contents, record: Record) -> dict[str, SavedBuild]:
    """Load each script with torch's loader, which runs code from the file.

    Returns:
        The saved builds by the signature of their call. A script that can't be loaded is left out
        with a warning, and built again.

    Raises:
        ArtifactError: a file is missing or changed.
    """
    scripts: dict[str, torch.nn.Module | None] = {}
    builds = {}
    for call in record.calls:
        if call.script is None:
            continue
        file = call.script.file
        if file not in contents.sums or not layout.is_artifact_file(file):
            raise contents.file_error(
                layout.RECORD, f"names the script {file[:100]!r}, which is missing"
            )
        if file not in scripts:
            scripts[file] = _load(contents, file)
        script = scripts[file]
        if script is not None:
            builds[call.signature] = _saved_build(script, call.script)
    return builds


def _load(contents: Contents, file: str) -> torch.nn.Module | None:
    data = contents.read(file)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # TorchScript is deprecated
            script: torch.nn.Module = torch.jit.load(io.BytesIO(data))  # type: ignore[no-untyped-call]
            return script
    except Exception as error:
        logger.warning(
            "%s can't be loaded; rebuilding: torch.jit.load raised %s",
            file,
            describe_error(error)[:200],
        )
        return None


def _saved_build(script: torch.nn.Module, described: Script) -> SavedBuild:
    stage = Stage(
        script,
        Form.SCRIPT,
        dtype_of(described.dtype),
        dtype_of(described.autocast),
        described.tolerance,
    )
    origin = {"loaded_from": described.file}
    outcomes = (
        replace(outcome, evidence={**outcome.evidence, **origin}, seconds=0.0, bytes=0)
        if outcome.status is Status.APPLIED
        else outcome
        for outcome in described.outcomes
    )
    return SavedBuild(stage, tuple(outcomes))
