"""A summary of an artifact, made without loading it."""

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from cpuaccel.artifact import layout
from cpuaccel.artifact.contents import Contents
from cpuaccel.artifact.record import fingerprint, read_record
from cpuaccel.errors import PipelineError
from cpuaccel.planning.toml import parse_pipeline


@dataclass(frozen=True)
class Summary:
    """The output of ``cpuaccel inspect``."""

    folder: str
    model: str
    load: str
    pipeline: str
    calls: tuple[str, ...]
    files: tuple[str, ...]
    changed: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"model     {self.model}", f"pipeline  {self.pipeline}"]
        lines += [f"call      {call}" for call in self.calls]
        lines.append(f"files     {len(self.files)}, all match {layout.SUMS}")
        lines += [f"changed   {change}" for change in self.changed]
        if not self.changed:
            lines.append("changed   none (same machine and versions)")
        return "\n".join([*lines, f"load      {self.load}"])


def summarize(folder: Path) -> Summary:
    """Verify all checksums, and read the text files."""
    with closing(Contents(folder)) as contents:
        record = read_record(contents)
        pipeline = parse_pipeline(contents.text(layout.PIPELINE), folder / layout.PIPELINE)
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
        calls=tuple(call.signature for call in record.calls)
        + (() if record.prompt is None else ("generate",)),
        files=files,
        changed=tuple(changed),
    )
