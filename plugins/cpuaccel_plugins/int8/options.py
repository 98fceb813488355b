"""The options of ``int8``."""

import enum
from typing import Annotated

from pydantic import Field

import cpuaccel


class Kind(enum.StrEnum):
    """What a linear does in a model."""

    ATTENTION_IN = "attention_in"
    """Query, key, value."""
    ATTENTION_OUT = "attention_out"
    FFN_IN = "ffn_in"
    """Before an activation."""
    FFN_OUT = "ffn_out"
    """After an activation."""
    HEAD = "head"
    """No other linear depends on its result, which is not added to hidden states either."""
    OTHER = "other"


class Int8Options(cpuaccel.Options):
    """Options of ``int8``.

    Attributes:
        float_names: linears to leave in float: globs on their names in ``named_modules``, or
            regular expressions after ``re:``, searched in them.
        int4_names: linears whose weights ``generate`` reads in 4 bits, with a scale for each 32 of
            them, given like ``float_names``: ``("model.layers.*",)`` are all but the head of most
            models. Faster and less exact: measure the quality on text of your own. Calls of
            ``forward`` compute them in 8 bits.
        float_kinds: kinds of linears to leave in float.
        max_error: leave the most sensitive linears in float, until the outputs on the example
            inputs differ by at most this, relative to the largest magnitude in an output. None:
            only the pipeline's tolerance applies. For other data and measures use
            ``cpuaccel_plugins.int8.sensitive_linears``.
        measure: probe each shape briefly, and leave in float what is not faster in 8 bits, and
            alone what stock operators compute as fast. If False, builds don't depend on the
            machine's load.
    """

    float_names: tuple[str, ...] = ()
    int4_names: tuple[str, ...] = ()
    float_kinds: tuple[Kind, ...] = (Kind.HEAD,)
    max_error: Annotated[float, Field(gt=0)] | None = None
    measure: bool = True
