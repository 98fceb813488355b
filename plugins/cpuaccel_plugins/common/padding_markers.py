"""Operators that mark the part of an exported graph in which padding need not be computed.

``bettertransformer`` removes padding in hooks that depend on the inputs' values, which can't be
exported. During export it adds these operators to the graph instead. They return their input, so
the graph is correct with them; ``onednn`` replaces them by real packing.
"""

import functools

import torch
from torch._ops import OpOverload

NAMESPACE = "cpuaccel"


def exporting() -> bool:
    """Whether ``torch.export`` is running."""
    is_exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)
    return bool(is_exporting())  # torch < 2.7 has only is_compiling


@functools.cache
def markers() -> tuple[OpOverload, OpOverload]:
    """Register the operators ``pack`` and ``unpack`` on the first call, and return them.

    Between them only attention mixes tokens, and values of padding are undefined.
    """

    # hidden: (batch or 1, length, *); real: (batch, length), bool, True for real tokens
    @torch.library.custom_op(f"{NAMESPACE}::pack", mutates_args=())
    def pack(hidden: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        return hidden.clone()

    @torch.library.custom_op(f"{NAMESPACE}::unpack", mutates_args=())
    def unpack(hidden: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        return hidden.clone()

    @pack.register_fake
    @unpack.register_fake
    def _(hidden: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        return torch.empty_like(hidden)

    operators = getattr(torch.ops, NAMESPACE)
    return operators.pack.default, operators.unpack.default
