"""One build for a cluster: its folder goes to the nodes through the object store."""

import io
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cpuaccel.integrations.ray.assigned import use_assigned_cpus
from cpuaccel.integrations.workers.folders import used_folder
from cpuaccel.integrations.workers.loading import Kind
from cpuaccel.integrations.workers.packed import unpack_built, write_built
from cpuaccel.plugin.cache_folder import cache_folder

if TYPE_CHECKING:
    from cpuaccel.integrations.tasks.served import PipelineLike


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

        def write(folder: Path) -> None:
            unpack_built(memoryview(ray.get(self.packed)), folder)

        return used_folder(cache_folder("ray") / self.key, write)


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
        kind: ``embed``, ``classify``, ``classify_tokens``, ``rerank`` or ``generate``.
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
    use_assigned_cpus()
    import numpy as np

    archive = io.BytesIO()
    write_built(kind, model, pipeline, archive)
    return np.frombuffer(archive.getbuffer(), np.uint8)
