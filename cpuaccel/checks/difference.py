"""How far an answer is from the original's."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Difference:
    """How far one output tensor is from the original's.

    Attributes:
        probe: which inputs gave it: the example, or how they were varied.
        output: the tensor's place in the output, such as ``logits``.
        absolute: largest absolute difference, over real tokens.
        relative: the same, divided by the largest magnitude in the original's tensor.
    """

    probe: str
    output: str
    absolute: float
    relative: float
