"""What a saved folder keeps of the build for ``generate``: ``kept.json`` and ``kept.bin``."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from cpuaccel.artifact import layout
from cpuaccel.artifact.contents import Contents
from cpuaccel.artifact.mapping.mapped_tensors import map_file
from cpuaccel.model.precision import dtype_name
from cpuaccel.plugin.kept import Kept

PAGE = 4096
"""Tensors begin at multiples of this: native code may need aligned memory."""


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


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class _Tensor(_Table):
    dtype: Literal["uint8", "int8", "int16", "int32", "int64", "bfloat16", "float32"]
    shape: tuple[Annotated[int, Field(ge=0, lt=2**48)], ...]
    offset: Annotated[int, Field(ge=0, multiple_of=PAGE)]


class _Record(_Table):
    """The whole of ``kept.json``."""

    pipeline: str  # checksums of the files that it was built from
    weights: str
    threads: int
    step: str
    bandwidth: float
    facts: dict[str, JsonValue]
    tensors: dict[str, _Tensor]


def write_kept(stepper: KeptStepper, folder: Path, sums: Mapping[str, str]) -> list[str]:
    """Write what was kept.

    Args:
        stepper: what was kept.
        folder: has all other files already.
        sums: their checksums.

    Returns:
        The names of the files written.
    """
    tensors = {}
    with (folder / layout.KEPT_TENSORS).open("wb") as file:
        for name, tensor in stepper.kept.tensors.items():
            file.write(b"\0" * (-file.tell() % PAGE))
            tensors[name] = _Tensor(
                dtype=dtype_name(tensor.dtype),
                shape=tuple(tensor.shape),
                offset=file.tell(),
            )
            file.write(tensor.detach().contiguous().view(-1).view(torch.uint8).numpy().data)
    record = _Record(
        pipeline=sums[layout.PIPELINE],
        weights=sums[layout.WEIGHTS],
        threads=torch.get_num_threads(),
        step=stepper.step,
        bandwidth=stepper.bandwidth,
        facts=dict(stepper.kept.facts),
        tensors=tensors,
    )
    (folder / layout.KEPT).write_text(record.model_dump_json() + "\n", encoding="utf-8")
    return [layout.KEPT, layout.KEPT_TENSORS]


def read_kept(contents: Contents) -> KeptStepper | str:
    """Map what was kept.

    Returns:
        What was kept, or why it can't be used here; empty if nothing was.

    Raises:
        ArtifactError: a file is missing, changed or invalid.
    """
    sums = contents.sums
    if layout.KEPT not in sums:
        return ""
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
    try:
        tensors = {name: _tensor(memory, one) for name, one in record.tensors.items()}
    except (ValueError, RuntimeError):
        raise contents.file_error(layout.KEPT, f"does not fit {layout.KEPT_TENSORS}") from None
    return KeptStepper(record.step, record.bandwidth, Kept(tensors, record.facts))


def _tensor(memory: torch.Tensor, one: _Tensor) -> torch.Tensor:
    dtype: torch.dtype = getattr(torch, one.dtype)
    end = one.offset + math.prod(one.shape) * torch.empty(0, dtype=dtype).element_size()
    if end > len(memory):
        raise ValueError
    return memory[one.offset : end].view(dtype).view(one.shape)
