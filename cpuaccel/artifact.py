"""Writing an optimized model to a folder."""

import json
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch

from cpuaccel.backend import Form
from cpuaccel.build import Variant
from cpuaccel.config import write_pipeline
from cpuaccel.errors import ArtifactError
from cpuaccel.plan import Plan
from cpuaccel.report import Report


def save(
    plans: Sequence[Plan], report: Report, variants: Sequence[Variant], folder: Path
) -> list[Path]:
    """Write ``pipeline.toml``, ``report.json`` and a ``model*.pt`` for each script.

    Raises:
        ArtifactError: nothing was built yet, or the folder can't be written, or the model has
            several pipelines, or a script that was loaded again answers otherwise.
    """
    if len(plans) > 1:
        raise ArtifactError(
            f"saving to {folder} was asked for, but the calls are shared by several pipelines "
            f"({', '.join(str(plan.pipeline) for plan in plans)}), and a folder holds one. Keep "
            "the decision with optimize(..., lock='cpuaccel.lock'), or save each by itself"
        )
    if not variants:
        raise ArtifactError(
            f"saving to {folder} was asked for, but nothing is built yet. Pass example_inputs to "
            "optimize(), or call the model once"
        )
    scripts = {variant.model: variant for variant in variants if variant.form is Form.SCRIPT}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        pipeline, outcomes = folder / "pipeline.toml", folder / "report.json"
        write_pipeline(plans[0].pipeline, pipeline)
        outcomes.write_text(json.dumps(report.to_dict(), indent=2) + "\n", encoding="utf-8")
        written = [pipeline, outcomes]
        for number, (script, variant) in enumerate(scripts.items()):
            path = folder / (f"model-{number}.pt" if number else "model.pt")
            assert isinstance(script, torch.jit.ScriptModule)
            script.save(str(path))  # as torch.jit.save, without telling that it is deprecated
            _recheck(variant, path)
            written.append(path)
    except (OSError, TypeError) as error:
        raise ArtifactError(f"saving to {folder} failed: {error}. Choose another folder") from error
    return written


def _recheck(variant: Variant, path: Path) -> None:
    """Load a script again and hold its answers against the original's.

    Raises:
        ArtifactError: they differ; the script is removed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that TorchScript is deprecated is in the documentation
        loaded = torch.jit.load(str(path))  # type: ignore[no-untyped-call]
    with torch.no_grad():
        fault = variant.fault(loaded)
    if fault:
        path.unlink()
        raise ArtifactError(
            f"saving to {path} was asked for, but the script that was loaded from it again is not "
            f"what was saved: {fault}. It is removed; report this"
        )
