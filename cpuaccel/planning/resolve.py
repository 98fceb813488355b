"""Resolving a pipeline: find its backends, validate their options, check their order."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from pydantic import ValidationError

from cpuaccel.errors import PipelineError, describe_invalid, did_you_mean
from cpuaccel.pipeline import Options, Pipeline, Step
from cpuaccel.plugin.backend import Backend, Form
from cpuaccel.plugin.manager import PluginHost, disable_plugins, plugin_host


@dataclass(frozen=True)
class ResolvedStep:
    """A step with its backend, which has valid options."""

    step: Step
    backend: Backend[Options] = field(repr=False)


def resolve_here(*pipelines: Pipeline) -> list[list[ResolvedStep]]:
    """Resolve pipelines to this process' plugins, except those that any pipeline blocks."""
    for pipeline in pipelines:  # before plugin_host() imports plugins
        disable_plugins(pipeline.disable_plugins, pipeline.source)
    return [resolve(pipeline, plugin_host()) for pipeline in pipelines]


def resolve(pipeline: Pipeline, plugins: PluginHost) -> list[ResolvedStep]:
    """Find each step's backend, validate its options and check the order.

    Raises:
        PipelineError: lists every mistake in the pipeline.
    """
    problems: list[str] = []
    resolved: list[ResolvedStep] = []
    for number, step in enumerate(pipeline.steps, start=1):
        where = f"step {number} ({step.backend})"
        backend_class = plugins.backends.get(step.backend)
        if backend_class is None:
            problems.append(f"{where}: {_unknown_backend(step.backend, plugins)}")
            continue
        try:
            options = backend_class.Options.model_validate(step.options)
        except ValidationError as error:
            fields = backend_class.Options.model_fields
            problems += [
                f"{where}: {describe_invalid(invalid, invalid['loc'], fields)}"
                for invalid in error.errors()
            ]
            options = backend_class.Options.model_construct()
        resolved.append(ResolvedStep(step, backend_class(options)))
    problems += _order_problems([r.backend for r in resolved], Form.MODULE)
    problems += _exclusions([r.backend for r in resolved])
    if problems:
        raise PipelineError(f"pipeline {pipeline} from {pipeline.source}", problems)
    return resolved


def _order_problems(backends: Sequence[Backend[Options]], form: Form) -> list[str]:
    problems = []
    giver: Backend[Options] | None = None
    for index, backend in enumerate(backends):
        earlier = backends[:index]
        if backend.name in {b.name for b in earlier}:
            problems.append(f"{backend.name} appears twice: remove one")
            continue
        if backend.takes != form:
            given = f"{giver.name} gives" if giver else "a pipeline starts with"
            remedy = _order_remedy(backend, giver) if giver else ""
            problems.append(
                f"{backend.name} takes {_noun(backend.takes)}, but {given} {_noun(form)}{remedy}"
            )
            continue  # check the next one without it: one mistake, one problem
        problems += [
            f"{backend.name} must come before {other.name}: swap them"
            for other in earlier
            if other.name in backend.before
        ]
        if backend.gives != form:
            form, giver = backend.gives, backend
    return problems


def _order_remedy(backend: Backend[Options], giver: Backend[Options]) -> str:
    """Advise the other order only where that one is valid."""
    if backend.takes == backend.gives == giver.takes and backend.name not in giver.before:
        return f": put {backend.name} before {giver.name}"
    return f". They can't be combined in either order: remove {backend.name} or {giver.name}"


def _noun(form: Form) -> str:
    return "a compiled model" if form is Form.COMPILED else f"a {form}"


def _exclusions(backends: Sequence[Backend[Options]]) -> list[str]:
    names = {backend.name for backend in backends}
    return [
        f"{name} can't be used together with {other}: {reason}. Remove one of them"
        for name, excludes in {b.name: b.excludes for b in backends}.items()
        for other, reason in excludes.items()
        if other in names
    ]


def _unknown_backend(name: str, plugins: PluginHost) -> str:
    if "," in name:
        names = [part.strip() for part in name.split(",")]
        return f"a step is one backend, got {name!r}. Pass a list: {names}"
    available = ", ".join(sorted(plugins.backends)) or "none"
    close = did_you_mean(name, plugins.backends)
    broken = "".join(f" Failed to load: {b.plugin} ({b.reason})." for b in plugins.broken)
    blocked = "".join(f" Blocked by {b.by}: {b.plugin}." for b in plugins.blocked)
    return f"unknown backend {name!r}{close} Available: {available}.{broken}{blocked}"
