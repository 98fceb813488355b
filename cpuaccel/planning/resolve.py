"""A pipeline held against the plugins: backends found, options validated, the order checked."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from pydantic import ValidationError

from cpuaccel.errors import PipelineError, describe_invalid, did_you_mean
from cpuaccel.pipeline import Options, Pipeline, Step
from cpuaccel.plugin.backend import Backend, Form
from cpuaccel.plugin.manager import PluginHost, disable_plugins, plugin_host


@dataclass(frozen=True)
class ResolvedStep:
    """A step whose backend exists and whose options are valid."""

    step: Step
    backend: Backend[Options] = field(repr=False)


def resolve_here(*pipelines: Pipeline) -> list[list[ResolvedStep]]:
    """Bind pipelines to this process' plugins, without those that any of them blocks.

    Raises:
        PipelineError: with every mistake in the first that has some.
    """
    for pipeline in pipelines:  # all of them before plugins are looked for, which imports them
        disable_plugins(pipeline.disable_plugins, pipeline.source)
    return [resolve(pipeline, plugin_host()) for pipeline in pipelines]


def resolve(pipeline: Pipeline, plugins: PluginHost) -> list[ResolvedStep]:
    """Find each step's backend, validate its options and the order.

    Raises:
        PipelineError: with every mistake in the pipeline.
    """
    problems: list[str] = []
    resolved: list[ResolvedStep] = []
    for number, step in enumerate(pipeline.steps, start=1):
        where = f"step {number} ({step.backend})"
        backend_class = plugins.backends.get(step.backend)
        if backend_class is None:
            problems.append(f"{where}: {unknown_backend(step.backend, plugins)}")
            continue
        try:
            options = backend_class.Options.model_validate(step.options)
        except ValidationError as error:
            fields = backend_class.Options.model_fields
            problems += [
                f"{where}: {describe_invalid(complaint, complaint['loc'], fields)}"
                for complaint in error.errors()
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


def _exclusions(backends: Sequence[Backend[Options]]) -> list[str]:
    names = {backend.name for backend in backends}
    return [
        f"{name} can't be used together with {other}: {reason}. Leave one of the two out"
        for name, excludes in {b.name: b.excludes for b in backends}.items()
        for other, reason in excludes.items()
        if other in names
    ]


def unknown_backend(name: str, plugins: PluginHost) -> str:
    """Say that nobody offers a backend, and what comes near."""
    offered = ", ".join(sorted(plugins.backends)) or "none"
    message = f"no plugin offers a backend {name!r}{did_you_mean(name, plugins.backends)}"
    broken = "".join(f" Failed to load: {b.plugin} ({b.reason})." for b in plugins.broken)
    blocked = "".join(f" Blocked by {b.by}: {b.plugin}." for b in plugins.blocked)
    return f"{message} Offered here: {offered}.{broken}{blocked}"
