"""Writing an artifact: ``OptimizedModel.save``."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import safetensors
import torch

from cpuaccel.artifact import layout
from cpuaccel.artifact.architecture import describe_architecture, describe_generation
from cpuaccel.artifact.atomic_write import replace_folder
from cpuaccel.artifact.contents import checksums, write_sums
from cpuaccel.artifact.examples import Example
from cpuaccel.artifact.mapping.kept_build import KeptBuild, KeptStepper, KeptVariant, write_kept
from cpuaccel.artifact.mapping.restored_variant import keep_variant
from cpuaccel.artifact.mapping.saved_here import remember_saved
from cpuaccel.artifact.record import Record, Script, Settings, fingerprint
from cpuaccel.artifact.tensors import collect_tensors, write_tensors
from cpuaccel.building.reference import Reference
from cpuaccel.building.variant import Variant
from cpuaccel.errors import ArtifactError
from cpuaccel.model.precision import dtype_name
from cpuaccel.model.signature import Inputs, Signature, cloned
from cpuaccel.planning.toml import write_pipeline
from cpuaccel.plugin.backend import Form
from cpuaccel.variants import Variants


def save(
    variants: Variants,
    folder: Path,
    *,
    prompt: Inputs | None,
    kept: KeptStepper | None,
    tokenizer: Path | None,
) -> list[Path]:
    """Write a folder that ``cpuaccel.load`` reads, or replace it in one step.

    Args:
        variants: what was built for calls.
        folder: the folder.
        prompt: inputs of a call whose output is stored, if something was built for ``generate``.
        kept: what the step that generates kept of its build.
        tokenizer: the folder of a tokenizer or processor to copy.
    """
    if not variants.built and prompt is None:
        raise ArtifactError(
            f"cannot save to {folder}: nothing is built yet. Pass example_inputs to optimize(), or "
            "call the model or its generate once"
        )
    try:
        with replace_folder(folder) as new:
            names, weights, kept_variants = _write(variants, new, prompt)
            names += [] if tokenizer is None else _copy_tokenizer(tokenizer, new)
            sums = checksums(new, names)
            if kept is not None or kept_variants:
                build = KeptBuild(kept, kept_variants)
                sums |= checksums(new, write_kept(build, new, sums, weights))
            remember_saved(write_sums(new, sums))
    except (OSError, TypeError, ValueError, KeyError, safetensors.SafetensorError) as error:
        raise ArtifactError(
            f"cannot save to {folder}: {error}. The folder is unchanged. Free disk space, or "
            "choose another folder"
        ) from error
    return [folder / name for name in (*sums, layout.SUMS)]


def _write(
    variants: Variants, folder: Path, asked: Inputs | None
) -> tuple[list[str], dict[str, torch.Tensor], tuple[KeptVariant, ...]]:
    """Write all but what is kept; return the files' names, the weights and what variants keep."""
    reference = variants.reference
    (plan,) = variants.plans
    changed = bool(reference.changes())
    weights, tied = collect_tensors(reference.original)
    model, config = describe_architecture(reference.original, weights, tied)
    scripts = _write_scripts(variants.built, folder)
    examples, kept = [], []
    with torch.no_grad():
        for number, variant in enumerate(variants.built):
            output = reference.run(cloned(variant.signature.inputs))  # it may write to them
            file = scripts.get(id(variant.model))
            script = None if file is None else _script(variant, file)
            examples.append(Example.from_output(variant.signature, output, script))
            # With other weights it was built from what is not saved.
            kept.append(None if changed else keep_variant(variant, number, output))
    prompt = None if asked is None else _prompt(variants.reference, asked)
    record = Record(
        model=model,
        settings=Settings.model_validate(variants.settings, from_attributes=True),
        calls=tuple(example.call for example in examples),
        prompt=None if prompt is None else prompt.call,
        tied=tied,
        made=fingerprint(plan.pipeline, model.packages),
    )
    write_pipeline(plan.pipeline, folder / layout.PIPELINE)
    _write_json(variants.report.to_dict(), folder / layout.REPORT)
    _write_json(record.model_dump(mode="json"), folder / layout.RECORD)
    configs = {} if config is None else {layout.CONFIG: config}
    if prompt is not None:
        configs[layout.GENERATION_CONFIG] = describe_generation(reference.original)
    for name, settings in configs.items():
        _write_json(settings, folder / name)
    write_tensors(weights, folder / layout.WEIGHTS)
    stored = [*examples, *([] if prompt is None else [prompt])]
    write_tensors(
        {k: t for n, example in enumerate(stored) for k, t in example.tensors(n).items()},
        folder / layout.EXAMPLES,
    )
    names = [*layout.REQUIRED, *configs, *dict.fromkeys(scripts.values())]
    return names, weights, tuple(one for one in kept if one is not None)


def _copy_tokenizer(source: Path, folder: Path) -> list[str]:
    names = [name for name in layout.TOKENIZER if (source / name).is_file()]
    if not names:
        raise ArtifactError(
            f"cannot save to {folder}: {source} has no file of a tokenizer or processor, such as "
            "tokenizer.json. Pass a folder that its save_pretrained wrote"
        )
    for name in names:
        shutil.copyfile(source / name, folder / name)
    return names


def _prompt(reference: Reference, inputs: Inputs) -> Example:
    """Record the original's logits for a prompt."""
    signature = Signature.from_inputs(reference.original, inputs)
    with torch.no_grad():
        return Example.from_output(signature, reference.run(signature.inputs), None)


def _write_scripts(variants: Sequence[Variant], folder: Path) -> dict[int, str]:
    """Write each script once. Returns file names by the script's id."""
    files: dict[int, str] = {}
    for variant in variants:
        if variant.stage.form is Form.SCRIPT and id(variant.model) not in files:
            assert isinstance(variant.model, torch.jit.ScriptModule)
            name = layout.script_name(len(files))
            # Through memory: torch's own writer aborts the process when the disk is full.
            (folder / name).write_bytes(variant.model.save_to_buffer())
            files[id(variant.model)] = name
    return files


def _script(variant: Variant, file: str) -> Script:
    stage = variant.stage
    return Script(
        file=file,
        dtype=None if stage.dtype is None else dtype_name(stage.dtype),
        autocast=None if stage.autocast is None else dtype_name(stage.autocast),
        tolerance=stage.tolerance,
        outcomes=variant.report.outcomes,
    )


def _write_json(data: object, path: Path) -> None:
    path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
