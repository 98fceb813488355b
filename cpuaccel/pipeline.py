"""What a user asks for: an ordered list of steps."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from pydantic import BaseModel, ConfigDict

from cpuaccel.errors import PipelineError

if TYPE_CHECKING:
    import torch


class Options(BaseModel):
    """Base of a backend's options: typed and immutable; unknown names are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


_backends_by_options: WeakKeyDictionary[type[Options], set[str]] = WeakKeyDictionary()


def declare_options(options: type[Options], backend: str) -> None:
    """Note that a backend declares this class as its ``Options``."""
    _backends_by_options.setdefault(options, set()).add(backend)


class Step:
    """A backend with its options at one place in a pipeline.

    Options are keywords, validated when the pipeline is resolved, or an object of the backend's
    ``Options`` class, validated where it is made. These two are equal:

        Step("int8", max_error=0.05)
        Step(Int8Options(max_error=0.05))  # from cpuaccel_plugins.int8 import Int8Options

    The second form also takes an option that is named ``optional``. It finds the backend by the
    class: exactly one backend must declare it as ``Options = ...`` in its own body.

    Attributes:
        backend: the backend's name.
        optional: whether the step may be skipped without a warning, and without an error if strict.
        options: the options that were set, by name.
    """

    def __init__(
        self, backend: str | Options, /, *, optional: bool = False, **options: object
    ) -> None:
        """Describe a step.

        Raises:
            PipelineError: options are passed in both forms, or not exactly one backend declares
                the options' class.
        """
        if isinstance(backend, Options):
            self.backend = _declaring_backend(backend, options)
            self.options = backend.model_dump(exclude_unset=True, by_alias=True)
        else:
            self.backend = backend
            self.options = options
        self.optional = optional

    def __repr__(self) -> str:
        options = "".join(f", {name}={value!r}" for name, value in self.options.items())
        return f"Step({self.backend!r}{', optional=True' if self.optional else ''}{options})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Step) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]  # options may be unhashable


def _declaring_backend(options: Options, keywords: dict[str, object]) -> str:
    name = type(options).__name__
    backends = sorted(_backends_by_options.get(type(options), ()))
    problem = ""
    if keywords:
        problem = f"options are passed as {name} and by keyword ({', '.join(keywords)}): use one"
    elif len(backends) != 1:
        owners = " and ".join(backends) or "no backend"
        problem = f"{name} is declared by {owners}: write Step with the backend's name instead"
    if problem:
        raise PipelineError(f"Step({options!r})", [problem])
    return backends[0]


@dataclass(frozen=True)
class Pipeline:
    """Steps in the order in which they are applied.

    Attributes:
        steps: the steps.
        dtype: precision of the whole pipeline, None to keep the model's own.
        source: where the pipeline was read from, for messages.
        disable_plugins: names of plugins to block before this pipeline is resolved.
        audit: which calls are compared with the original, see ``optimize``; None for its default.
    """

    steps: tuple[Step, ...]
    dtype: "torch.dtype | None" = None
    source: str = "backends"
    disable_plugins: tuple[str, ...] = ()
    audit: bool | float | None = None

    @classmethod
    def from_steps(
        cls, backends: Iterable[str | Step], dtype: "torch.dtype | None" = None
    ) -> "Pipeline":
        """Make a pipeline of backend names and steps; one name is one step."""
        if isinstance(backends, str):
            backends = [backends]
        return cls(tuple(Step(b) if isinstance(b, str) else b for b in backends), dtype)

    def __str__(self) -> str:
        return ",".join(step.backend for step in self.steps) or "(no steps)"
