"""A summary of an artifact, made without loading it."""

import json
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from cpuaccel.artifact import layout
from cpuaccel.artifact.contents import Contents
from cpuaccel.artifact.record import fingerprint, read_record
from cpuaccel.errors import PipelineError
from cpuaccel.model.precision import dtype_name
from cpuaccel.planning.plan import OWN_DTYPE
from cpuaccel.planning.toml import parse_pipeline

_FLOATING = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""The names of dtypes in safetensors, and in torch."""


@dataclass(frozen=True)
class Summary:
    """The output of ``cpuaccel inspect``."""

    folder: str
    model: str
    load: str
    pipeline: str
    dtype: str  # of the pipeline
    weights: tuple[str, ...]  # their floating-point dtypes
    calls: tuple[str, ...]
    files: tuple[str, ...]
    changed: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"model     {self.model}", f"pipeline  {self.pipeline}"]
        lines.append(f"dtype     {self.dtype}; weights {', '.join(self.weights) or 'none'}")
        lines += [f"call      {call}" for call in self.calls]
        lines.append(f"files     {len(self.files)}, all match {layout.SUMS}")
        lines += [f"changed   {change}" for change in self.changed]
        if not self.changed:
            lines.append("changed   none (same machine and versions)")
        return "\n".join([*lines, f"load      {self.load}"])


def summarize(folder: Path) -> Summary:
    """Verify all checksums, and read the text files."""
    with closing(Contents(folder, hash_all=True)) as contents:
        record = read_record(contents)
        pipeline = parse_pipeline(contents.text(layout.PIPELINE), folder / layout.PIPELINE)
        weights = _dtypes(contents)
        contents.check_rest()
        files = tuple(contents.sums)
    try:
        changed = record.made.changes(fingerprint(pipeline, record.model.packages))
    except PipelineError as error:
        changed = list(error.problems)
    makes_model = record.model.model_type is not None and layout.CONFIG in files
    return Summary(
        folder=str(folder),
        model=record.model.name,
        load=f"cpuaccel.load({str(folder)!r}{'' if makes_model else ', model'})",
        pipeline=str(pipeline),
        dtype=OWN_DTYPE if pipeline.dtype is None else dtype_name(pipeline.dtype),
        weights=weights,
        calls=tuple(call.signature for call in record.calls)
        + (() if record.prompt is None else ("generate",)),
        files=files,
        changed=tuple(changed),
    )


def _dtypes(contents: Contents) -> tuple[str, ...]:
    """Read the floating-point dtypes of the weights."""
    header = contents.tensors_header(layout.WEIGHTS)
    try:
        tensors = json.loads(header)
        codes = {one["dtype"] for name, one in tensors.items() if name != "__metadata__"}
    except (ValueError, RecursionError, AttributeError, TypeError, KeyError):
        raise contents.file_error(layout.WEIGHTS, "is not a safetensors file") from None
    return tuple(name for code, name in _FLOATING.items() if code in codes)
