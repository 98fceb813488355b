"""What a saved folder keeps of a build: ``kept.json`` and ``kept.bin``."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, BinaryIO, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from cpuaccel.artifact import layout
from cpuaccel.artifact.contents import Contents
from cpuaccel.artifact.mapping.mapped_tensors import map_file
from cpuaccel.artifact.mapping.variant_record import VariantRecord
from cpuaccel.model.precision import dtype_name
from cpuaccel.plugin.kept import Kept

PAGE = 4096
"""Tensors begin at multiples of this: native code may need aligned memory."""

HUGE_PAGE = 2**21


@dataclass(frozen=True)
class KeptStepper:
    """What a step kept of its stepper.

    Attributes:
        step: the name of the step.
        bandwidth: bytes a second that the machine reads from memory.
        kept: what the backend kept.
    """

    step: str
    bandwidth: float
    kept: Kept


@dataclass(frozen=True)
class KeptVariant:
    """What the last step kept of a variant for calls.

    Attributes:
        call: the place of the call among those of ``artifact.json``.
        record: what is known of the variant.
        kept: what the backend kept.
    """

    call: int
    record: VariantRecord
    kept: Kept


@dataclass(frozen=True)
class KeptBuild:
    """What was kept for ``generate`` and for calls."""

    stepper: KeptStepper | None = None
    variants: tuple[KeptVariant, ...] = ()


Weights = Mapping[str, torch.Tensor]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


Integer = Literal["bool", "uint8", "int8", "int16", "int32", "int64"]
Floating = Literal["float16", "bfloat16", "float32", "float64"]

Shape = tuple[Annotated[int, Field(ge=0, lt=2**48)], ...]


class _Tensor(_Table):
    """A tensor in ``kept.bin``."""

    dtype: Integer | Floating
    shape: Shape
    offset: Annotated[int, Field(ge=0, multiple_of=PAGE)]


class _Weight(_Table):
    """A tensor in ``weights.safetensors``."""

    weight: str
    shape: Shape


class _Kept(_Table):
    facts: dict[str, JsonValue]
    tensors: dict[str, _Tensor | _Weight]


class _Stepper(_Kept):
    step: str
    bandwidth: float


class _Variant(_Kept):
    call: Annotated[int, Field(ge=0)]
    record: VariantRecord


class _Record(_Table):
    """The whole of ``kept.json``."""

    pipeline: str  # checksums of the files that it was built from
    weights: str
    threads: int
    stepper: _Stepper | None
    variants: tuple[_Variant, ...]


def check_kept(kept: Kept) -> None:
    """Check that what a backend keeps can be written.

    Raises:
        ValueError: a fact is not JSON, or a tensor has a dtype that is not stored.
    """
    empty = {
        name: _Tensor(dtype=dtype_name(tensor.dtype), shape=tuple(tensor.shape), offset=0)
        for name, tensor in kept.tensors.items()
    }
    _Kept.model_validate_json(_Kept(facts=dict(kept.facts), tensors=empty).model_dump_json())


def write_kept(
    build: KeptBuild, folder: Path, sums: Mapping[str, str], weights: Weights
) -> list[str]:
    """Write what was kept.

    Args:
        build: what was kept.
        folder: has all other files already.
        sums: their checksums.
        weights: what ``weights.safetensors`` contains; not written again.

    Returns:
        The names of the files written.
    """
    known = {_memory(tensor): name for name, tensor in weights.items() if tensor.is_contiguous()}
    with (folder / layout.KEPT_TENSORS).open("wb", buffering=HUGE_PAGE) as file:

        def write(kept: Kept) -> dict[str, _Tensor | _Weight]:
            return {name: _write_tensor(file, one, known) for name, one in kept.tensors.items()}

        stepper, variants = build.stepper, []
        described = stepper and _Stepper(
            step=stepper.step,
            bandwidth=stepper.bandwidth,
            facts=dict(stepper.kept.facts),
            tensors=write(stepper.kept),
        )
        for one in build.variants:
            facts = dict(one.kept.facts)
            tensors = write(one.kept)
            variants.append(
                _Variant(call=one.call, record=one.record, facts=facts, tensors=tensors)
            )
    record = _Record(
        pipeline=sums[layout.PIPELINE],
        weights=sums[layout.WEIGHTS],
        threads=torch.get_num_threads(),
        stepper=described,
        variants=tuple(variants),
    )
    (folder / layout.KEPT).write_text(record.model_dump_json() + "\n", encoding="utf-8")
    return [layout.KEPT, layout.KEPT_TENSORS]


def _write_tensor(
    file: BinaryIO, tensor: torch.Tensor, known: Mapping[tuple[object, ...], str]
) -> _Tensor | _Weight:
    tensor = tensor.detach().contiguous()
    shape = tuple(tensor.shape)
    weight = known.get(_memory(tensor))
    if weight is not None and tensor.numel():
        return _Weight(weight=weight, shape=shape)
    file.write(b"\0" * (-file.tell() % PAGE))
    offset = file.tell()
    _write(file, tensor.view(-1).view(torch.uint8).numpy().data)
    return _Tensor(dtype=dtype_name(tensor.dtype), shape=shape, offset=offset)


def _memory(tensor: torch.Tensor) -> tuple[object, ...]:
    return tensor.data_ptr(), tensor.numel(), tensor.dtype


def _write(file: BinaryIO, data: memoryview) -> None:
    """Write so that the system is given whole huge pages.

    It then caches the file in huge pages, which processes map: with small ones the kernels that
    read a decoder's weights took a third longer.
    """
    while len(data):
        part = data[: HUGE_PAGE - file.tell() % HUGE_PAGE]  # a longer one would not be buffered
        file.write(part)
        data = data[len(part) :]


def read_kept(contents: Contents, weights: Weights) -> KeptBuild | str:
    """Map what was kept.

    Args:
        contents: the folder.
        weights: what ``weights.safetensors`` contains.

    Returns:
        What was kept, or why it can't be used here.

    Raises:
        ArtifactError: a file is missing, changed or invalid.
    """
    sums = contents.sums
    if layout.KEPT not in sums:
        return KeptBuild()
    try:
        record = _Record.model_validate_json(contents.text(layout.KEPT))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "the top level"
        raise contents.file_error(
            layout.KEPT, f"is invalid at {field[:120]}: {first['msg'].lower()[:200]}"
        ) from None
    if (record.pipeline, record.weights) != (sums[layout.PIPELINE], sums[layout.WEIGHTS]):
        return "it was made from other weights or options"
    if record.threads != torch.get_num_threads():
        return f"it was made with {record.threads} threads, not {torch.get_num_threads()}"
    if layout.KEPT_TENSORS not in sums:
        raise contents.file_error(layout.KEPT_TENSORS, "is missing")
    with contents.open(layout.KEPT_TENSORS) as file:
        memory = map_file(file)

    def kept(one: _Kept) -> Kept:
        tensors = {name: _read_tensor(memory, t, weights) for name, t in one.tensors.items()}
        return Kept(tensors, one.facts)

    try:
        stepper = record.stepper
        return KeptBuild(
            None
            if stepper is None
            else KeptStepper(stepper.step, stepper.bandwidth, kept(stepper)),
            tuple(KeptVariant(one.call, one.record, kept(one)) for one in record.variants),
        )
    except (ValueError, RuntimeError, KeyError):
        raise contents.file_error(layout.KEPT, f"does not fit {layout.KEPT_TENSORS}") from None


def _read_tensor(memory: torch.Tensor, one: _Tensor | _Weight, weights: Weights) -> torch.Tensor:
    if isinstance(one, _Weight):
        return weights[one.weight].view(one.shape)
    dtype: torch.dtype = getattr(torch, one.dtype)
    end = one.offset + math.prod(one.shape) * torch.empty(0, dtype=dtype).element_size()
    if end > len(memory):
        raise ValueError
    return memory[one.offset : end].view(dtype).view(one.shape)
