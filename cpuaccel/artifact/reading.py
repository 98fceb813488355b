"""Reading an artifact: ``cpuaccel.load``."""

import functools
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch

from cpuaccel.api import optimize
from cpuaccel.artifact import layout
from cpuaccel.artifact.architecture import CannotMakeError, make
from cpuaccel.artifact.contents import Contents
from cpuaccel.artifact.examples import Example
from cpuaccel.artifact.record import Record, fingerprint, read_record
from cpuaccel.artifact.scripts import read_scripts
from cpuaccel.artifact.tensors import mismatch, put, read_tensors
from cpuaccel.building.stage import calling
from cpuaccel.errors import ArtifactError, CpuaccelError
from cpuaccel.model.precision import default_tolerance
from cpuaccel.model.signature import Inputs
from cpuaccel.optimized import OptimizedModel
from cpuaccel.planning.toml import parse_pipeline

logger = logging.getLogger("cpuaccel")


def load(
    folder: str | Path,
    model: torch.nn.Module | None = None,
    *,
    on_change: Literal["rebuild", "refuse"] = "rebuild",
    trust_engine_files: bool = False,
) -> OptimizedModel:
    """Load what ``OptimizedModel.save`` wrote, and check that it answers as it did.

    Every file is held against its hash. The model gets its weights, the original's answers to the
    stored examples are held against the stored ones, the pipeline is applied, and what it gives is
    held against both. No code comes from the folder: a Transformers model is made of its
    configuration by the installed Transformers, any other by the caller.

    Example::

        fast.save("fast/")
        fast = cpuaccel.load("fast/")  # a Transformers model
        fast = cpuaccel.load("mine/", MyModel())  # any other: its weights are replaced

    Args:
        folder: what ``save`` wrote.
        model: the model to put the weights into. It is changed only if loading succeeds.
        on_change: what to do on another machine, or with other versions of what the pipeline uses:
            apply the pipeline here, whose steps are checked anew, or refuse.
        trust_engine_files: run the folder's TorchScript instead of making it anew, on the same
            machine with the same versions. TorchScript is a program: trust it only where you would
            run code from the same source.

    Returns:
        The optimized model, built for every way of calling that was saved.

    Raises:
        ArtifactError: what the folder lacks, or what is not as it was saved.
    """
    folder = Path(folder)
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
) -> OptimizedModel:
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
    with put(model, weights, record.tied), torch.no_grad(), calling(None):
        optimized = optimize(
            model,
            pipeline=pipeline,
            strict=record.settings.strict,
            tolerance=record.settings.tolerance,
            keep_original=record.settings.keep_original,
        )
        optimized._builder.ready.update(scripts)
        _prepare(contents, optimized, examples)
    return optimized


def _prepare(contents: Contents, optimized: OptimizedModel, examples: list[Example]) -> None:
    """Build for every stored call; answers of the original and of what is built are as stored."""
    builder = optimized._builder
    usual = default_tolerance({p.dtype for p in builder.eager.parameters()})
    calls = [_bound(optimized, example.inputs) for example in examples]
    for example, inputs in zip(examples, calls):
        answer = functools.partial(builder.run_original, inputs)
        _compare(contents, optimized, example, answer, usual, "the model")
    for example, inputs in zip(examples, calls):
        variant = optimized.prepare(inputs)
        if isinstance(variant, str):
            raise contents.fault(layout.RECORD, f"holds a call that can't be answered: {variant}")
        accepted = variant.report.fidelity
        if accepted is not None:
            answer = functools.partial(variant.answer, inputs)
            tolerance = usual + accepted.tolerance
            _compare(contents, optimized, example, answer, tolerance, "what the pipeline gives")


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


def _bound(optimized: OptimizedModel, inputs: Inputs) -> Inputs:
    binder = optimized._builder.binder
    bound = binder.bind((), inputs)
    binder.check(bound)
    return bound


def _compare(
    contents: Contents,
    optimized: OptimizedModel,
    example: Example,
    answer: Callable[[], object],
    tolerance: float,
    whose: str,
) -> None:
    """Hold answers against the stored ones."""
    try:
        found = example.differences(answer(), optimized._builder.eager)
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
