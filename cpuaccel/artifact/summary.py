"""What an artifact is, without loading it."""

from dataclasses import asdict, dataclass
from pathlib import Path

from cpuaccel.artifact import layout
from cpuaccel.artifact.contents import Contents
from cpuaccel.artifact.record import fingerprint, read_record
from cpuaccel.errors import PipelineError
from cpuaccel.planning.toml import parse_pipeline


@dataclass(frozen=True)
class Summary:
    """What ``cpuaccel inspect`` tells.

    Attributes:
        folder: where it is.
        model: the class that was saved.
        load: the call that loads it.
        pipeline: the backends.
        calls: the signatures that it was built for.
        files: names of the files, all found to be what was saved.
        changed: what is another here than where it was made.
    """

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
        lines.append(f"files     {len(self.files)}, all with the SHA-256 that {layout.SUMS} lists")
        lines += [f"changed   {change}" for change in self.changed]
        if not self.changed:
            lines.append("changed   nothing: this machine and these versions made it")
        return "\n".join([*lines, f"load      {self.load}"])

    def to_dict(self) -> dict[str, object]:
        """The same as data that JSON can hold."""
        return asdict(self)


def summarize(folder: Path) -> Summary:
    """Check all hashes, and read what people can read.

    Raises:
        ArtifactError: a file is not what was saved.
    """
    with Contents(folder) as contents:
        record = read_record(contents)
        pipeline = parse_pipeline(contents.text(layout.PIPELINE), folder / layout.PIPELINE)
        for name in contents.sums.keys() - contents.checked:
            contents.check(name)
        files = tuple(contents.sums)
    try:
        changed = record.made.changes(fingerprint(pipeline, record.model.packages))
    except PipelineError as error:
        changed = list(error.problems)
    makes = record.model.model_type is not None and layout.CONFIG in files
    return Summary(
        folder=str(folder),
        model=record.model.name,
        load=f"cpuaccel.load({str(folder)!r}{'' if makes else ', model'})",
        pipeline=str(pipeline),
        calls=tuple(call.signature for call in record.calls),
        files=files,
        changed=tuple(changed),
    )
