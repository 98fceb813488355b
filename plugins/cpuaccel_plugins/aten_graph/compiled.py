"""A compiled program as a callable model."""

import torch

from cpuaccel_plugins.aten_graph.codegen import compile_program
from cpuaccel_plugins.aten_graph.nodes import shape
from cpuaccel_plugins.aten_graph.program import Program
from cpuaccel_plugins.common.open_sizes import fixed_size


class CompiledGraph:
    """Calls a compiled program: input tensors by name in, a flat tuple of tensors out."""

    def __init__(self, program: Program) -> None:
        self._run = compile_program(program)
        # The sizes of inputs that the export fixed, with None for dynamic ones.
        sizes = {
            str(node.target): tuple(map(fixed_size, shape(node))) for node in program.placeholders
        }
        self._fixed_sizes = {name: fixed for name, fixed in sizes.items() if any(fixed)}

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
