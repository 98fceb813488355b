"""The fused graph as something to call."""

import torch

from cpuaccel_plugins.aten_graph.codegen import Run

FixedSizes = dict[str, tuple[int | None, ...]]
"""Of each input, the sizes that the graph was captured for; None where any will do."""


class FusedGraph:
    """Calls a compiled program: input tensors by name in, a flat tuple of tensors out."""

    def __init__(self, run: Run, sizes: FixedSizes) -> None:
        """Wrap a program.

        Args:
            run: the program.
            sizes: what its inputs have to be.
        """
        self._run = run
        self._sizes = {n: wanted for n, wanted in sizes.items() if any(wanted)}

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError(
            "a fused graph holds packed weights, which torch can neither copy nor pickle. Copy or "
            "pickle the optimized model instead: its copy packs them anew"
        )

    def __call__(self, **inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Run it.

        Raises:
            ValueError: an input has another size where the export fixed it.
        """
        for name, wanted in self._sizes.items():
            shape = inputs[name].shape
            if any(w is not None and w != size for w, size in zip(wanted, shape)):
                raise ValueError(
                    f"{name} has shape {tuple(shape)}, but the graph was exported for {wanted}, "
                    "where None is any size"
                )
        return self._run(**inputs)
