"""A built model in one file: a tar archive of the folder that workers load."""

import io
import tarfile
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING

from cpuaccel.integrations.workers.loading import Kind, load_task

if TYPE_CHECKING:
    from cpuaccel.integrations.tasks.served import PipelineLike


def write_built(kind: Kind, model: str | Path, pipeline: "PipelineLike", file: IO[bytes]) -> None:
    """Build a task, and write its folder as a tar archive."""
    task = load_task(kind, model, pipeline)
    with tempfile.TemporaryDirectory() as files:
        folder = Path(files) / "model"
        task.save(folder)
        with tarfile.open(fileobj=file, mode="w") as archive:
            for path in folder.iterdir():  # Spark refuses an entry for the folder itself
                archive.add(path, arcname=path.name)


def unpack_built(archive: "memoryview | bytes", folder: Path) -> None:
    """Write the files to a folder."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")
    trust_built(folder)


def trust_built(folder: Path) -> None:
    """Let this machine restore what was kept of the build, as if it had been saved here.

    The folder comes from the program whose code runs here, too.
    """
    from cpuaccel.artifact import layout
    from cpuaccel.artifact.mapping.saved_here import remember_saved

    for sums in folder.rglob(layout.SUMS):
        remember_saved(sums.read_bytes())
