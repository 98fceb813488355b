"""One build for a cluster: its folder goes to the nodes through the object store."""

import io
import tarfile
import tempfile
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import filelock
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cpuaccel.plugin.cache_folder import cache_folder

if TYPE_CHECKING:
    from cpuaccel.integrations.tasks.served import PipelineLike, ServedModel

Kind = Literal["embed", "classify", "classify_tokens", "generate"]


def load_task(kind: Kind, model: str | Path, pipeline: "PipelineLike", **options: Any) -> Any:
    """Load and optimize a model for a kind of task; see ``cpuaccel.integrations.tasks``."""
    from cpuaccel.integrations import tasks

    loaders: dict[Kind, Callable[..., ServedModel]] = {
        "embed": tasks.load_embedder,
        "classify": tasks.load_classifier,
        "classify_tokens": tasks.load_token_classifier,
        "generate": tasks.load_generator,
    }
    return loaders[kind](model, pipeline, **options)


@dataclass(frozen=True)
class Shared:
    """A built model in Ray's object store, from ``share``.

    Attributes:
        kind: what it was built for.
        key: the name of its folder in each node's cache.
        packed: reference to the files, as a tar archive.
    """

    kind: Kind
    key: str
    packed: Any

    def unpacked(self) -> Path:
        """Return the folder on this node. The first worker writes it, and the others wait."""
        folder = cache_folder("ray") / self.key
        folder.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(f"{folder}.lock"):
            if not folder.is_dir():
                archive = io.BytesIO(memoryview(ray.get(self.packed)))
                with tempfile.TemporaryDirectory(dir=folder.parent) as files:
                    with tarfile.open(fileobj=archive) as tar:
                        tar.extractall(files, filter="data")
                    Path(files).rename(folder)
                    Path(files).mkdir()  # which the context removes
        return folder


def share(
    model: str | Path,
    kind: Kind = "embed",
    *,
    pipeline: "str | Path | Sequence[str] | None" = None,
    num_cpus: int = 1,
) -> Shared:
    """Build a model once, on the node that this is called on, for all workers of the cluster.

    Pass what it returns as ``model`` to the classes of this package. Other nodes need neither the
    folder nor a shared disk. A worker on a host of another kind applies the pipeline anew.

    Args:
        model: a folder on this node, or a hub id.
        kind: ``embed``, ``classify``, ``classify_tokens`` or ``generate``.
        pipeline: names of backends, a TOML file or a ``Pipeline``. Default: see
            ``cpuaccel.optimize``.
        num_cpus: CPUs to build with.

    Raises:
        ray.exceptions.RayTaskError: the model can't be loaded or optimized.
    """
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    build: Any = ray.remote(_build).options(num_cpus=num_cpus, scheduling_strategy=here)
    # Put by this process, so that it outlives the worker that built it.
    packed = ray.put(ray.get(build.remote(kind, str(model), pipeline)))
    return Shared(kind, uuid.uuid4().hex, packed)


def _build(kind: Kind, model: str, pipeline: "PipelineLike") -> Any:
    """Build, and return the files as bytes in a numpy array, which workers map."""
    from cpuaccel.integrations.ray.threads import use_assigned_cpus

    use_assigned_cpus()
    import numpy as np

    task = load_task(kind, model, pipeline)
    archive = io.BytesIO()
    with tempfile.TemporaryDirectory() as files:
        folder = Path(files) / "model"
        task.save(folder)
        with tarfile.open(fileobj=archive, mode="w") as tar:
            tar.add(folder, arcname=".")
    return np.frombuffer(archive.getbuffer(), np.uint8)
