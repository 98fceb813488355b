"""Reading and verifying an artifact, and building its variants: ``cpuaccel.load``."""

import json
import logging
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Generic, Literal, NamedTuple, TypeVar

import torch

from cpuaccel.artifact import layout
from cpuaccel.artifact.architecture import (
    ArchitectureError,
    is_described,
    make_model,
    set_generation,
)
from cpuaccel.artifact.contents import Contents
from cpuaccel.artifact.examples import Example
from cpuaccel.artifact.mapping.kept_build import KeptBuild, KeptStepper, KeptVariant, read_kept
from cpuaccel.artifact.mapping.mapped_tensors import map_safetensors
from cpuaccel.artifact.mapping.restored_variant import restore_variant
from cpuaccel.artifact.mapping.saved_here import is_saved_here
from cpuaccel.artifact.record import Record, fingerprint, read_record
from cpuaccel.artifact.scripts import read_scripts
from cpuaccel.artifact.tensors import (
    WeightsMismatchError,
    assign_tensors,
    check_tensors,
    read_tensors,
)
from cpuaccel.building.settings import BuildSettings
from cpuaccel.building.stage import autocast
from cpuaccel.errors import ArtifactError, BackendError, CpuaccelError, shortened
from cpuaccel.model.precision import default_tolerance
from cpuaccel.model.signature import Inputs, cloned
from cpuaccel.planning.plan import make_plan
from cpuaccel.planning.toml import parse_pipeline
from cpuaccel.report import Fallback
from cpuaccel.variants import Variants

logger = logging.getLogger("cpuaccel")

_FOREIGN = (
    "another user or machine saved it. If you would run code from there, pass "
    "trust_engine_files=True"
)

Source = TypeVar("Source")

Restored = TypeVar("Restored")

Restore = Callable[[Variants, KeptStepper, Inputs, torch.Tensor], Restored | None]
"""Restores what serves ``generate`` of what was kept, and compares it with the original's logits
for inputs; None if it is not right."""


class Loaded(NamedTuple, Generic[Restored]):
    """What a folder contains.

    Attributes:
        variants: the pipeline, with a variant for each call that was saved.
        generates: whether it served ``generate``.
        restored: what ``restore`` returned.
    """

    variants: Variants
    generates: bool
    restored: Restored | None


def read_artifact(
    folder: Path,
    model: torch.nn.Module | None,
    on_change: Literal["rebuild", "refuse"],
    trust_engine_files: bool,
    restore: Restore[Restored],
) -> Loaded[Restored]:
    """Read a folder and build what was saved. See ``cpuaccel.load``.

    Args:
        folder: the folder.
        model: see ``cpuaccel.load``.
        on_change: see ``cpuaccel.load``.
        trust_engine_files: see ``cpuaccel.load``.
        restore: restores what serves ``generate``.
    """
    if on_change not in ("rebuild", "refuse"):
        raise ArtifactError(f"on_change must be 'rebuild' or 'refuse', got {on_change!r}")
    if model is not None and not isinstance(model, torch.nn.Module):
        raise ArtifactError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    try:
        with closing(Contents(folder)) as contents:
            return _load(contents, model, on_change, trust_engine_files, restore)
    except ArtifactError:
        raise
    except CpuaccelError as error:
        # Errors repeat names from the files, which may have any length.
        raise ArtifactError(f"cannot load {folder}: {shortened(str(error))}") from error


def _load(
    contents: Contents,
    model: torch.nn.Module | None,
    on_change: Literal["rebuild", "refuse"],
    trust_engine_files: bool,
    restore: Restore[Restored],
) -> Loaded[Restored]:
    record = read_record(contents)
    pipeline = parse_pipeline(contents.text(layout.PIPELINE), contents.folder / layout.PIPELINE)
    changed = record.made.changes(fingerprint(pipeline, record.model.packages))
    if changed and on_change == "refuse":
        raise contents.error(
            f"it was saved with another host or other versions: {shortened('; '.join(changed))}",
            "Pass on_change='rebuild' to apply its pipeline here",
        )
    for change in changed:
        logger.info("%s: %s", contents.folder, change)
    with contents.open(layout.WEIGHTS) as file:
        weights = _parsed(contents, layout.WEIGHTS, map_safetensors, file)
    examples, prompt = _examples(contents, record)
    scripts = read_scripts(contents, record) if trust_engine_files and not changed else {}
    kept, reason = _read_kept(contents, changed, weights)
    config, generation_config = (
        contents.text(name) if name in contents.sums else None
        for name in (layout.CONFIG, layout.GENERATION_CONFIG)
    )
    contents.check_rest()
    passed = model
    if passed is not None and not is_described(passed, record, config, weights):
        refused = "the model was passed by the caller, whose code may have changed"
    else:
        refused = "" if trust_engine_files or is_saved_here(contents.listed) else _FOREIGN
    if kept.variants and refused:
        kept, reason = replace(kept, variants=()), refused
    if model is None:
        model = _make_model(contents, record, config, weights)
        if generation_config is not None:
            _set_generation(contents, model, generation_config)
    try:
        check_tensors(model, weights, record.tied)
    except WeightsMismatchError as error:
        raise contents.error(
            f"the saved weights of {record.model.name} do not fit {type(model).__name__}: they "
            f"{error}",
            "Pass a model like the saved one",
        ) from None
    with assign_tensors(model, weights, record.tied), torch.no_grad(), autocast(None):
        settings = BuildSettings(**record.settings.model_dump())
        variants = Variants(model, [make_plan(model, pipeline)], settings)
        variants.builders[0].saved.update(scripts)
        variants.report.not_restored = reason
        if reason:
            logger.info("%s: building again: %s", contents.folder, reason)
        restored = None
        if prompt is not None and kept.stepper is not None:
            restored = restore(variants, kept.stepper, prompt.inputs, prompt.outputs[0].tensor)
        binder = variants.reference.binder
        examples = [replace(e, inputs=binder.bind_example(e.inputs)) for e in examples]
        if passed is not None and kept.variants:
            _compare_originals(contents, variants, examples)
        examples = _restore(variants, examples, kept.variants)
        _build(contents, variants, examples, prompt if restored is None else None)
    return Loaded(variants, prompt is not None, restored)


def _read_kept(
    contents: Contents, changed: list[str], weights: dict[str, torch.Tensor]
) -> tuple[KeptBuild, str]:
    """Map what was kept; without it, return why it can't be used here, or nothing."""
    if layout.KEPT not in contents.sums:
        return KeptBuild(), ""
    if changed:
        return KeptBuild(), f"the host or versions differ: {shortened('; '.join(changed))}"
    kept = read_kept(contents, weights)
    return (KeptBuild(), kept) if isinstance(kept, str) else (kept, "")


def _restore(
    variants: Variants, examples: list[Example], kept: tuple[KeptVariant, ...]
) -> list[Example]:
    """Restore what was kept, and return the examples for which there was nothing right."""
    by_call = {one.call: one for one in kept}
    missing = []
    for number, example in enumerate(examples):
        if number in by_call:
            try:
                variants.add(restore_variant(by_call[number], example, variants))
                continue
            except BackendError as error:
                variants.report.not_restored = shortened(str(error))
                logger.warning("what was kept can't be used; rebuilding: %s", error)
        missing.append(example)
    return missing


def _build(
    contents: Contents, variants: Variants, examples: list[Example], prompt: Example | None
) -> None:
    """Build a variant for each stored call, and compare all outputs with the stored ones."""
    reference = variants.reference
    prompts = [] if prompt is None else [prompt]
    usual = _compare_originals(contents, variants, [*examples, *prompts])
    for example in examples:
        route = variants.get(example.inputs)
        if isinstance(route, Fallback):
            raise contents.file_error(
                layout.RECORD, f"has a call that can't be optimized: {route.reason}"
            )
        variant = route.variant
        fidelity = variant.report.fidelity
        if fidelity is not None:
            tolerance = usual + fidelity.tolerance
            _compare(contents, reference.eager, example, variant.run, tolerance, "the pipeline")


def _compare_originals(contents: Contents, variants: Variants, examples: list[Example]) -> float:
    """Compare the original's outputs with the stored ones, and return the tolerance."""
    reference = variants.reference
    usual = default_tolerance({p.dtype for p in reference.eager.parameters()})
    for example in examples:
        _compare(contents, reference.eager, example, reference.run, usual, "the model")
    return usual


def _make_model(
    contents: Contents, record: Record, config: bytes | None, weights: dict[str, torch.Tensor]
) -> torch.nn.Module:
    call = f"cpuaccel.load({str(contents.folder)!r}, model)"
    if record.model.model_type is None or config is None:
        raise contents.error(
            f"it has no code for {record.model.name} ({record.model.reason})",
            f"Make the model, and pass it: {call}",
        )
    try:
        return make_model(record.model, json.loads(config), weights, record.tied)
    except (ValueError, RecursionError) as error:
        raise contents.file_error(layout.CONFIG, f"is invalid JSON: {str(error)[:120]}") from None
    except ArchitectureError as error:
        version = record.made.packages.get("transformers", "unknown")
        raise contents.error(
            f"{record.model.name} can't be made: {error}",
            f"Install the version of transformers that it was saved with ({version}), or make the "
            f"model and pass it: {call}",
        ) from None


def _set_generation(contents: Contents, model: torch.nn.Module, settings: bytes) -> None:
    try:
        set_generation(model, json.loads(settings))
    except (ValueError, RecursionError, ArchitectureError) as error:
        raise contents.file_error(
            layout.GENERATION_CONFIG, f"can't be used: {str(error)[:300]}"
        ) from None


def _compare(
    contents: Contents,
    original: torch.nn.Module,
    example: Example,
    run: Callable[[Inputs], object],
    tolerance: float,
    name: str,
) -> None:
    try:
        differences = example.compare(run(cloned(example.inputs)), original, tolerance)
    except Exception as error:  # models raise any type on inputs that they do not accept
        raise contents.error(
            f"{name} raised {type(error).__name__} on the stored example "
            f"{example.call.signature[:200]}: {str(error)[:200]}",
            "Pass the model that was saved, or save it again",
        ) from error
    worst = max(differences, key=lambda d: d.relative, default=None)
    if worst is not None and not worst.relative <= tolerance:
        raise contents.error(
            f"{name} does not reproduce the stored output: {worst} (tolerance {tolerance:g})",
            "Pass the model that was saved, or save it again with these versions",
        )


def _examples(contents: Contents, record: Record) -> tuple[list[Example], Example | None]:
    """Return the examples of calls, and the prompt if there is one."""
    tensors = _parsed(contents, layout.EXAMPLES, read_tensors, contents.read(layout.EXAMPLES))
    calls, prompt = record.calls, record.prompt
    try:
        examples = [Example.from_tensors(n, call, tensors) for n, call in enumerate(calls)]
        if prompt is None:
            return examples, None
        return examples, Example.from_tensors(len(calls), prompt, tensors)
    except KeyError as error:
        raise contents.file_error(layout.EXAMPLES, f"lacks the tensor {error}") from None


def _parsed(
    contents: Contents, name: str, parse: Callable[[Source], dict[str, torch.Tensor]], data: Source
) -> dict[str, torch.Tensor]:
    try:
        return parse(data)
    except ValueError as error:
        raise contents.file_error(name, f"can't be read as safetensors: {error}") from None
