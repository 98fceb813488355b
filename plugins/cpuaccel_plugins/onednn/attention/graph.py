"""Attention in one piece: oneDNN's graph API, which stock PyTorch reaches through TorchScript.

It goes head by head, and a head's scores stay in one core's cache: as operators of their own, the
products and the softmax write those of all heads to memory, and read them again. TorchScript
compiles it for fixed sizes, in some milliseconds: sizes have to come up often to be worth it.
"""

import threading
import warnings
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import torch

USES = 24
"""Calls for the same sizes before they are compiled for: two of a model with twelve layers."""

KEPT = 512
"""Kinds of attention that are compiled at most; further ones are left to products."""

COUNTED = 4096
"""Kinds whose calls are counted at most."""

Kernel: TypeAlias = Callable[[torch.Tensor], torch.Tensor]
"""Takes a joint operand, (batch, tokens, 3, heads, head size), contiguous in every axis; returns
(batch, tokens, heads x head size)."""

_SOURCE = """
def attend(joint):
    query, key, value = joint.permute([2, 0, 3, 1, 4]).unbind(0)
    scores = torch.matmul(query, key.transpose(-1, -2)) * {scale!r}
    result = torch.matmul(torch.softmax(scores, -1), value)
    return result.transpose(1, 2).reshape([{batch}, {tokens}, {width}])
"""


class Kind(NamedTuple):
    """What attention is compiled for: sizes, the factor on the scores, and the threads it takes."""

    batch: int
    tokens: int
    heads: int
    size: int
    dtype: torch.dtype
    scale: float
    threads: int


class Kernels:
    """Those compiled so far in this process, and how often others were called for."""

    def __init__(self) -> None:
        self._found: dict[Kind, Kernel | None] = {}
        self._uses: Counter[Kind] = Counter()
        self._compiling = threading.Lock()

    def of(self, kind: Kind) -> Kernel | None:
        """What attends so in one piece; None while it is called for seldom, or not to be had."""
        try:
            return self._found[kind]
        except KeyError:
            return self._count(kind)

    def _count(self, kind: Kind) -> Kernel | None:
        if len(self._found) >= KEPT:
            return None
        if len(self._uses) >= COUNTED:
            self._uses.clear()
        self._uses[kind] += 1
        # Who finds another thread compiling does without, and asks again in the next layer.
        if self._uses[kind] < USES or not self._compiling.acquire(blocking=False):
            return None
        try:
            kernel = self._found[kind] = compiled(kind)
        finally:
            self._compiling.release()
        return kernel


def compiled(kind: Kind) -> Kernel | None:
    """Have torch compile it; None where this torch does not make one piece of it.

    Args:
        kind: ``kind.threads`` are those that torch has now.
    """
    batch, tokens, heads, size, dtype, scale, _ = kind
    source = _SOURCE.format(scale=scale, batch=batch, tokens=tokens, width=heads * size)
    before = torch._C._jit_set_llga_enabled(True)
    try:
        with warnings.catch_warnings(), torch.inference_mode(False), torch.no_grad():
            warnings.simplefilter("ignore")  # an engine in the process may warn of its own passes
            example = torch.zeros(batch, tokens, 3, heads, size, dtype=dtype)
            kernel: Kernel = torch.jit.CompilationUnit(source).attend
            for _ in range(2):  # the first call is observed, the second compiled
                kernel(example)
            executed = str(torch.jit.last_executed_optimized_graph())
    except RuntimeError:
        return None
    finally:
        torch._C._jit_set_llga_enabled(before)
    return kernel if "oneDNNFusionGroup" in executed else None


kernels = Kernels()
