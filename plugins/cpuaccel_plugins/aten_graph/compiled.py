"""A compiled program as a callable model."""

import torch

from cpuaccel_plugins.aten_graph.codegen import compile_program
from cpuaccel_plugins.aten_graph.nodes import value
from cpuaccel_plugins.aten_graph.program import Program


class CompiledGraph:
    """Calls a compiled program: input tensors by name in, a flat tuple of tensors out."""

    def __init__(self, program: Program) -> None:
        self._run = compile_program(program)
        self._fixed_sizes = {
            str(node.target): sizes
            for node in program.placeholders
            if any(sizes := _fixed_sizes(node))
        }

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError(
            "a compiled graph has packed weights, which torch can neither copy nor pickle. Copy "
            "or pickle the optimized model instead: its copy packs them again"
        )

    def __call__(self, **inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Run the program; ValueError if an input has another size than the export fixed."""
        for name, fixed in self._fixed_sizes.items():
            shape = inputs[name].shape
            if any(must is not None and must != size for must, size in zip(fixed, shape)):
                raise ValueError(
                    f"{name} must have shape {fixed} (None: any size), got {tuple(shape)}"
                )
        return self._run(**inputs)


def _fixed_sizes(placeholder: object) -> tuple[int | None, ...]:
    """Return the sizes of an input that the export fixed; None for dynamic ones."""
    fake = value(placeholder)
    shape = () if fake is None else fake.shape
    return tuple(size if isinstance(size, int) else None for size in shape)
