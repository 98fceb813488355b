"""What can be asked of ``int8``."""

import enum
from typing import Annotated

from pydantic import Field

import cpuaccel


class Kind(enum.StrEnum):
    """What a linear is for."""

    ATTENTION_IN = "attention_in"
    """Query, key, value."""
    ATTENTION_OUT = "attention_out"
    FFN_IN = "ffn_in"
    """What an activation follows."""
    FFN_OUT = "ffn_out"
    """What comes after an activation."""
    HEAD = "head"
    """No other linear is computed from its result."""
    OTHER = "other"


class Int8Options(cpuaccel.Options):
    """Options of ``int8``.

    Attributes:
        float_names: linears to leave in float: globs on the names that ``named_modules`` gives
            them, or regular expressions to be found in them, after ``re:``.
        float_kinds: kinds of linears to leave in float.
        max_error: leave in float those that do the greatest harm, until the outputs on the example
            inputs differ by no more, relative to the largest magnitude in an output; None leaves it
            to the pipeline's tolerance. For other data and other measures there is
            ``cpuaccel_plugins.int8.sensitive_linears``.
        measure: leave in float, after a short probe of each shape, what is not faster in 8 bits,
            and what stock operators do as fast. Off, builds don't depend on the machine's load.
    """

    float_names: tuple[str, ...] = ()
    float_kinds: tuple[Kind, ...] = (Kind.HEAD,)
    max_error: Annotated[float, Field(gt=0)] | None = None
    measure: bool = True
