"""Operators that mark, in an exported graph, between where padding need not be computed.

``bettertransformer`` removes padding with hooks, whose work depends on the inputs' values: no
exporter can follow it. While a model is exported it puts these in the graph instead. Called, they
hand on what they are given, so a graph with them in it is right as it is; ``onednn`` replaces them
by real packing.
"""

import functools

import torch
from torch._ops import OpOverload

NAMESPACE = "cpuaccel"


def exporting() -> bool:
    """Whether ``torch.export`` is following what is being computed."""
    ask = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)  # torch < 2.7
    return bool(ask())


@functools.cache
def markers() -> tuple[OpOverload, OpOverload]:
    """The operators ``pack`` and ``unpack``, registered when first asked for.

    Both take (hidden, real): shape (batch or 1, length, *) and (batch, length), bool, True for
    real tokens. Between them a token is treated alone but in attention, and what comes out for
    padding is left open.
    """

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
