"""Attention as one kernel of oneDNN's graph API, which stock PyTorch reaches through TorchScript.

It computes head by head, and a head's scores stay in a core's cache; separate products and softmax
write the scores of all heads to memory and read them again. TorchScript compiles a kernel for
fixed sizes in some milliseconds, which pays only for frequent sizes.
"""

import threading
import warnings
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import torch

USES = 24
"""Uses of the same sizes before a kernel is compiled: two calls of a model with twelve layers."""

MOST_KERNELS = 512
"""Most kernels in a process; attention of further sizes is computed by products."""

MOST_COUNTED = 4096

Kernel: TypeAlias = Callable[[torch.Tensor], torch.Tensor]
"""Takes joint operands, shape (batch, tokens, 3, heads, head size), contiguous; returns shape
(batch, tokens, heads x head size)."""

_SOURCE = """
def attend(joint):
    query, key, value = joint.permute([2, 0, 3, 1, 4]).unbind(0)
    scores = torch.matmul(query, key.transpose(-1, -2)) * {scale!r}
    result = torch.matmul(torch.softmax(scores, -1), value)
    return result.transpose(1, 2).reshape([{batch}, {tokens}, {width}])
"""


class KernelKey(NamedTuple):
    """What a kernel is compiled for: sizes, the factor on the scores, and torch's threads."""

    batch: int
    tokens: int
    heads: int
    size: int
    dtype: torch.dtype
    scale: float
    threads: int


class KernelCache:
    """The kernels compiled in this process, and how often other sizes were used."""

    def __init__(self) -> None:
        self._kernels: dict[KernelKey, Kernel | None] = {}
        self._uses: Counter[KernelKey] = Counter()
        self._compiling = threading.Lock()

    def get(self, key: KernelKey) -> Kernel | None:
        """The kernel; None if its sizes are not frequent yet, or it can't be compiled."""
        try:
            return self._kernels[key]
        except KeyError:
            return self._count(key)

    def _count(self, key: KernelKey) -> Kernel | None:
        if len(self._kernels) >= MOST_KERNELS:
            return None
        if len(self._uses) >= MOST_COUNTED:
            self._uses.clear()
        self._uses[key] += 1
        # While another thread compiles, use products instead of waiting.
        if self._uses[key] < USES or not self._compiling.acquire(blocking=False):
            return None
        try:
            kernel = self._kernels[key] = compile_kernel(key)
        finally:
            self._compiling.release()
        return kernel


def compile_kernel(key: KernelKey) -> Kernel | None:
    """Compile a kernel for torch's current threads; None if it is not fused entirely."""
    batch, tokens, heads, size, dtype, scale, _ = key
    source = _SOURCE.format(scale=scale, batch=batch, tokens=tokens, width=heads * size)
    before = torch._C._jit_set_llga_enabled(True)
    try:
        # Other engines' passes may warn.
        with warnings.catch_warnings(action="ignore"), torch.inference_mode(False), torch.no_grad():
            example = torch.zeros(batch, tokens, 3, heads, size, dtype=dtype)
            kernel: Kernel = torch.jit.CompilationUnit(source).attend
            for _ in range(2):  # TorchScript profiles the first call and compiles in the second
                kernel(example)
            executed = str(torch.jit.last_executed_optimized_graph())
    except RuntimeError:
        return None
    finally:
        torch._C._jit_set_llga_enabled(before)
    return kernel if "oneDNNFusionGroup" in executed else None


kernels = KernelCache()
