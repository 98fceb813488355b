"""Reading an artifact: ``cpuaccel.load``."""

import functools
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch

from cpuaccel.artifact import layout
from cpuaccel.artifact.architecture import CannotMakeError, make
from cpuaccel.artifact.contents import Contents
from cpuaccel.artifact.examples import Example
from cpuaccel.artifact.record import Record, fingerprint, read_record
from cpuaccel.artifact.scripts import read_scripts
from cpuaccel.artifact.tensors import mismatch, put, read_tensors
from cpuaccel.building.settings import BuildSettings
from cpuaccel.building.stage import autocast
from cpuaccel.errors import ArtifactError, CpuaccelError
from cpuaccel.model.precision import default_tolerance
from cpuaccel.model.signature import Binder, Inputs
from cpuaccel.planning.plan import make_plan
from cpuaccel.planning.toml import parse_pipeline
from cpuaccel.report import Fallback
from cpuaccel.variants import Variants

logger = logging.getLogger("cpuaccel")


def read_artifact(
    folder: Path,
    model: torch.nn.Module | None,
    on_change: Literal["rebuild", "refuse"],
    trust_engine_files: bool,
) -> Variants:
    """Read a folder and build what was saved. See ``cpuaccel.load``.

    Raises:
        ArtifactError: the folder is incomplete or changed, or the outputs differ.
    """
    if on_change not in ("rebuild", "refuse"):
        raise ArtifactError(
            f"loading {folder} with on_change={on_change!r} was asked for. Pass 'rebuild' or "
            "'refuse'"
        )
    if model is not None and not isinstance(model, torch.nn.Module):
        raise ArtifactError(
            f"loading {folder} into a {type(model).__name__} was asked for. Pass a torch.nn.Module"
        )
    try:
        with Contents(folder) as contents:
            return _load(contents, model, on_change == "refuse", trust_engine_files)
    except ArtifactError:
        raise
    except CpuaccelError as error:
        # Files may hold names of any length, which errors repeat.
        raise ArtifactError(f"loading {folder} was asked for, but {str(error)[:1000]}") from error


def _load(
    contents: Contents, model: torch.nn.Module | None, refuse: bool, trust_engine_files: bool
) -> Variants:
    record = read_record(contents)
    pipeline = parse_pipeline(contents.text(layout.PIPELINE), contents.folder / layout.PIPELINE)
    changed = record.made.changes(fingerprint(pipeline, record.model.packages))
    if changed and refuse:
        raise ArtifactError(
            f"{contents.asked} with on_change='refuse', but it was made elsewhere: "
            f"{'; '.join(changed)[:1000]}. Pass on_change='rebuild' to apply its pipeline here"
        )
    for change in changed:
        logger.info("%s: %s", contents.folder, change)
    weights = _tensors(contents, layout.WEIGHTS)
    stored = _tensors(contents, layout.EXAMPLES)
    examples = [_example(contents, record, stored, number) for number in range(len(record.calls))]
    scripts = read_scripts(contents, record) if trust_engine_files and not changed else {}
    config = contents.text(layout.CONFIG) if layout.CONFIG in contents.sums else None
    for name in contents.sums.keys() - contents.checked:
        contents.check(name)
    if model is None:
        model = _made(contents, record, config, weights)
    if problem := mismatch(model, weights, record.tied):
        raise ArtifactError(
            f"{contents.asked} into a {type(model).__name__}, but the weights of the "
            f"{record.model.name} that was saved {problem}. Pass a model like that one"
        )
    with put(model, weights, record.tied), torch.no_grad(), autocast(None):
        settings = BuildSettings(
            strict=record.settings.strict,
            tolerance=record.settings.tolerance,
            keep_original=record.settings.keep_original,
        )
        variants = Variants(model, [make_plan(model, pipeline)], settings)
        variants.builders[0].saved.update(scripts)
        _build(contents, variants, examples)
    return variants


def _build(contents: Contents, variants: Variants, examples: list[Example]) -> None:
    """Build a variant for every stored call, and compare all outputs with the stored ones."""
    reference = variants.reference
    usual = default_tolerance({p.dtype for p in reference.eager.parameters()})
    calls = [_bound(reference.binder, example.inputs) for example in examples]
    for example, inputs in zip(examples, calls):
        run = functools.partial(reference.run, inputs)
        _compare(contents, reference.eager, example, run, usual, "the model")
    for example, inputs in zip(examples, calls):
        variant = variants.get(inputs)
        if isinstance(variant, Fallback):
            raise contents.fault(
                layout.RECORD, f"has a call that can't be optimized: {variant.reason}"
            )
        fidelity = variant.report.fidelity
        if fidelity is not None:
            run = functools.partial(variant.run, inputs)
            tolerance = usual + fidelity.tolerance
            _compare(contents, reference.eager, example, run, tolerance, "the pipeline")


def _made(
    contents: Contents, record: Record, config: bytes | None, weights: dict[str, torch.Tensor]
) -> torch.nn.Module:
    """A Transformers model of the stored configuration."""
    if record.model.model_type is None or config is None:
        raise ArtifactError(
            f"{contents.asked} without a model, but it holds a {record.model.name}, whose code is "
            f"not in it ({record.model.reason}). Make one as before and pass it: "
            f"cpuaccel.load({str(contents.folder)!r}, model)"
        )
    try:
        return make(record.model, json.loads(config), weights, record.tied)
    except (ValueError, RecursionError) as error:
        raise contents.fault(layout.CONFIG, f"is no JSON: {str(error)[:120]}") from None
    except CannotMakeError as error:
        raise ArtifactError(
            f"{contents.asked} without a model, but its {record.model.name} can't be made here: "
            f"{error}. Install the version of transformers that it was saved with "
            f"({record.made.packages.get('transformers', 'unknown')}), or make the model and pass "
            f"it: cpuaccel.load({str(contents.folder)!r}, model)"
        ) from None


def _bound(binder: Binder, inputs: Inputs) -> Inputs:
    bound = binder.bind((), inputs)
    binder.check(bound)
    return bound


def _compare(
    contents: Contents,
    original: torch.nn.Module,
    example: Example,
    answer: Callable[[], object],
    tolerance: float,
    whose: str,
) -> None:
    """Hold answers against the stored ones."""
    try:
        found = example.differences(answer(), original)
    except Exception as error:  # models raise what they like on inputs that are not theirs
        raise ArtifactError(
            f"{contents.asked}, but {whose} raises {type(error).__name__} on the stored example "
            f"{example.call.signature[:200]}: {str(error)[:200]}. Pass the model that was saved, "
            "or save it anew"
        ) from error
    worst = max(found, key=lambda d: d.relative, default=None)
    if worst is not None and not worst.relative <= tolerance:
        raise ArtifactError(
            f"{contents.asked}, but {whose} does not answer as what was saved: {worst.output} "
            f"differs by {worst.absolute:.3g}, {worst.relative:.3g} of its magnitude (tolerance "
            f"{tolerance:g}). Pass the model that was saved, or save it anew with these versions"
        )


def _example(
    contents: Contents, record: Record, tensors: dict[str, torch.Tensor], number: int
) -> Example:
    try:
        return Example.read(number, record.calls[number], tensors)
    except KeyError as error:
        raise contents.fault(layout.EXAMPLES, f"lacks the tensor {error}") from None


def _tensors(contents: Contents, name: str) -> dict[str, torch.Tensor]:
    try:
        return read_tensors(contents.read(name))
    except ValueError as error:
        raise contents.fault(name, f"can't be read as safetensors: {error}") from None
