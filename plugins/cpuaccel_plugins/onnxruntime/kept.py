"""The model that ONNX Runtime has optimized, and sessions of it."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from cpuaccel import Kept
from cpuaccel_plugins.common.quiet import quiet_export
from cpuaccel_plugins.onnxruntime.export import Exported, separate_weights
from cpuaccel_plugins.onnxruntime.session import open_session

if TYPE_CHECKING:
    import onnxruntime

_GRAPH = "graph"
_WEIGHT = "weight "
_EMPTY_ROWS = "empty_rows"


def keep_session(exported: Exported, optimization: str, empty_rows: bool) -> Kept:
    """Let ONNX Runtime write the model after its optimizations, and read it.

    Args:
        exported: what the session was opened of.
        optimization: the level of optimization.
        empty_rows: whether the original computes batches with rows of padding only.
    """
    import onnx_ir

    with tempfile.TemporaryDirectory(prefix="cpuaccel-") as folder, quiet_export():
        path = Path(folder) / "optimized.onnx"
        open_session(exported, optimization, optimized=path)
        # The weights are mapped from a file that exists as long as they do.
        optimized = separate_weights(onnx_ir.load(path))
    weights = {f"{_WEIGHT}{name}": tensor for name, tensor in optimized.weights.items()}
    graph = torch.frombuffer(bytearray(optimized.graph), dtype=torch.uint8)
    return Kept({_GRAPH: graph, **weights}, {_EMPTY_ROWS: empty_rows})


def restore_session(kept: Kept) -> "onnxruntime.InferenceSession":
    """Open a session; ONNX Runtime packs weights again, in memory of this process."""
    weights = {
        name.removeprefix(_WEIGHT): tensor
        for name, tensor in kept.tensors.items()
        if name.startswith(_WEIGHT)
    }
    graph = kept.tensors[_GRAPH].numpy().tobytes()
    return open_session(Exported(graph, weights, frozenset()), "disabled")


def needs_empty_rows(kept: Kept) -> bool:
    """Whether the original computes batches with rows of padding only."""
    return kept.facts[_EMPTY_ROWS] is True
