"""An ordered list of steps, and what can be said against it before any work."""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from cpuaccel.errors import PipelineError

if TYPE_CHECKING:
    import torch

    from cpuaccel.backend import Backend, Options
    from cpuaccel.plugins import PluginHost


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
    """

    steps: tuple[Step, ...]
    dtype: "torch.dtype | None" = None
    source: str = "backends"

    @classmethod
    def of(cls, backends: Iterable[str | Step], dtype: "torch.dtype | None" = None) -> "Pipeline":
        """Make a pipeline of names and steps."""
        if isinstance(backends, str):
            backends = [backends]
        return cls(tuple(Step(b) if isinstance(b, str) else b for b in backends), dtype)

    def __str__(self) -> str:
        return ",".join(step.backend for step in self.steps) or "(no steps)"


@dataclass(frozen=True)
class BoundStep:
    """A step whose backend exists and whose options are valid."""

    step: Step
    backend: "Backend[Options]" = field(repr=False)


def bind(pipeline: Pipeline, plugins: "PluginHost") -> list[BoundStep]:
    """Find each step's backend, validate its options and the order.

    Raises:
        PipelineError: with every mistake in the pipeline.
    """
    from cpuaccel.backend import Form

    problems: list[str] = []
    bound: list[BoundStep] = []
    for number, step in enumerate(pipeline.steps, start=1):
        where = f"step {number} ({step.backend})"
        backend_class = plugins.backends.get(step.backend)
        if backend_class is None:
            problems.append(f"{where}: {unknown_backend(step.backend, plugins)}")
            continue
        try:
            options = backend_class.Options(**step.options)
        except ValidationError as error:
            fields = backend_class.Options.model_fields
            problems += [
                f"{where}: {describe_complaint(complaint, complaint['loc'], fields)}"
                for complaint in error.errors()
            ]
            options = backend_class.Options.model_construct()
        bound.append(BoundStep(step, backend_class(options)))
    problems += _order_problems([b.backend for b in bound], Form.MODULE)
    if problems:
        raise PipelineError(f"pipeline {pipeline} from {pipeline.source}", problems)
    return bound


def _order_problems(backends: "Sequence[Backend[Options]]", form: str) -> list[str]:
    problems = []
    giver = None
    for index, backend in enumerate(backends):
        earlier = backends[:index]
        if backend.name in {b.name for b in earlier}:
            problems.append(f"{backend.name} is named twice: remove one of the two")
            continue
        if backend.takes != form:
            given = f"{giver} gives a {form}" if giver else f"the pipeline starts with a {form}"
            advice = f": put {backend.name} before {giver}" if giver else ""
            problems.append(f"{backend.name} takes a {backend.takes}, but {given}{advice}")
            continue  # as if it were not there, so that one mistake is told once
        problems += [
            f"{backend.name} must come before {other.name}: swap them"
            for other in earlier
            if other.name in backend.before
        ]
        if backend.gives != form:
            form, giver = backend.gives, backend.name
    return problems


def unknown_backend(name: str, plugins: "PluginHost") -> str:
    """Say that nobody offers a backend, and what comes near."""
    offered = ", ".join(sorted(plugins.backends)) or "none"
    message = f"no plugin offers a backend {name!r}{did_you_mean(name, plugins.backends)}"
    broken = "".join(f" Set aside: {b.plugin} ({b.reason})." for b in plugins.broken)
    return f"{message} Offered here: {offered}.{broken}"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The known word that comes nearest, as a question, or just a full stop."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f". Did you mean {near[0]!r}?" if near else "."


def describe_complaint(
    complaint: ErrorDetails, location: Sequence[int | str], known: Iterable[str]
) -> str:
    """One of pydantic's complaints as a sentence that names the field and what comes near.

    Args:
        complaint: the complaint.
        location: the path to the field, from where the reader's eyes are.
        known: names of the fields that there are.
    """
    name = ".".join(str(part) for part in location)
    if complaint["type"] == "extra_forbidden":
        near = did_you_mean(name, known)
        return f"there is no {name!r}{near} Known: {', '.join(known) or 'none'}"
    if complaint["type"] == "missing":
        return f"{name!r} is missing: add it"
    subject = f"{name}: " if name else ""
    return f"{subject}{complaint['msg'].lower()}, but got {complaint['input']!r}"
