"""A compiled program as a callable model."""

from collections.abc import Mapping, Sequence

import torch

from cpuaccel_plugins.aten_graph.codegen import compile_program
from cpuaccel_plugins.aten_graph.nodes import shape
from cpuaccel_plugins.aten_graph.program import Program
from cpuaccel_plugins.common.open_sizes import fixed_size

FixedSizes = Mapping[str, tuple[int | None, ...]]
"""The sizes of inputs that an export fixed, with None for dynamic ones; without inputs of which
all are dynamic."""


class CompiledGraph:
    """Calls a compiled program: input tensors by name in, a flat tuple of tensors out."""

    def __init__(
        self, program: Program, fixed: FixedSizes, memory: Sequence[torch.Tensor] = ()
    ) -> None:
        """Compile a program; ``memory`` is what its tensors read without owning it."""
        self._run = compile_program(program)
        self._fixed_sizes = fixed
        self._memory = memory

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError(
            "a compiled graph has packed weights, which torch can neither copy nor pickle. Copy "
            "or pickle the optimized model instead: its copy packs them again"
        )

    def __call__(self, **inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Run the program; ValueError if an input has another size than the export fixed."""
        for name, fixed in self._fixed_sizes.items():
            given = inputs[name].shape
            if any(must is not None and must != size for must, size in zip(fixed, given)):
                raise ValueError(
                    f"{name} must have shape {fixed} (None: any size), got {tuple(given)}"
                )
        return self._run(**inputs)


def fixed_sizes(program: Program) -> FixedSizes:
    """The sizes of inputs that the export of a program fixed."""
    sizes = {str(node.target): tuple(map(fixed_size, shape(node))) for node in program.placeholders}
    return {name: fixed for name, fixed in sizes.items() if any(fixed)}
