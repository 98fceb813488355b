"""What is asked for: an ordered list of steps."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


class Step:
    """A backend with its options at one place in a pipeline.

    Example::

        Step("jit", freeze=True)

    Attributes:
        backend: the backend's name.
        optional: whether it may be skipped without a warning, and without an error where strict.
        options: the backend's options, not yet validated.
    """

    def __init__(self, backend: str, /, *, optional: bool = False, **options: object) -> None:
        self.backend = backend
        self.optional = optional
        self.options = options

    def __repr__(self) -> str:
        options = "".join(f", {name}={value!r}" for name, value in self.options.items())
        return f"Step({self.backend!r}{', optional=True' if self.optional else ''}{options})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Step) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]  # options may be unhashable


@dataclass(frozen=True)
class Pipeline:
    """Steps in the order in which they are applied.

    Attributes:
        steps: the steps.
        dtype: precision for the whole pipeline, None to keep the model's own.
        source: where it was read from, for messages.
        disable_plugins: names of plugins that are not to be used where this pipeline is.
    """

    steps: tuple[Step, ...]
    dtype: "torch.dtype | None" = None
    source: str = "backends"
    disable_plugins: tuple[str, ...] = ()

    @classmethod
    def from_steps(
        cls, backends: Iterable[str | Step], dtype: "torch.dtype | None" = None
    ) -> "Pipeline":
        """Make a pipeline of names and steps."""
        if isinstance(backends, str):
            backends = [backends]
        return cls(tuple(Step(b) if isinstance(b, str) else b for b in backends), dtype)

    def __str__(self) -> str:
        return ",".join(step.backend for step in self.steps) or "(no steps)"
