"""Writing an optimized model to a folder."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch

from cpuaccel.backend import Form
from cpuaccel.build import Variant
from cpuaccel.config import write_pipeline
from cpuaccel.errors import ArtifactError
from cpuaccel.plan import Plan
from cpuaccel.report import Report


def save(plan: Plan, report: Report, variants: Sequence[Variant], folder: Path) -> list[Path]:
    """Write ``pipeline.toml``, ``report.json`` and a ``model*.pt`` for each script.

    Raises:
        ArtifactError: nothing was built yet, or the folder can't be written.
    """
    if not variants:
        raise ArtifactError(
            f"saving to {folder} was asked for, but nothing is built yet. Pass example_inputs to "
            "optimize(), or call the model once"
        )
    scripts = [variant.model for variant in variants if variant.form is Form.SCRIPT]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        pipeline, outcomes = folder / "pipeline.toml", folder / "report.json"
        write_pipeline(plan.pipeline, pipeline)
        outcomes.write_text(json.dumps(report.to_dict(), indent=2) + "\n", encoding="utf-8")
        written = [pipeline, outcomes]
        for number, script in enumerate(dict.fromkeys(scripts)):
            path = folder / (f"model-{number}.pt" if number else "model.pt")
            assert isinstance(script, torch.jit.ScriptModule)
            script.save(str(path))  # as torch.jit.save, without telling that it is deprecated
            written.append(path)
    except (OSError, TypeError) as error:
        raise ArtifactError(f"saving to {folder} failed: {error}. Choose another folder") from error
    return written
