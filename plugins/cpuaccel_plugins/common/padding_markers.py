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
    def marker(hidden: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        return hidden.clone()

    for name in ("pack", "unpack"):
        operator = torch.library.custom_op(f"{NAMESPACE}::{name}", marker, mutates_args=())
        operator.register_fake(marker)
    operators = getattr(torch.ops, NAMESPACE)
    return operators.pack.default, operators.unpack.default
