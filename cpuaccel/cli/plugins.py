"""``cpuaccel plugins``."""

import enum
import types
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from json import dumps
from typing import TYPE_CHECKING, Annotated, Literal, Union, get_args, get_origin

import typer

from cpuaccel.cli.arguments import BlockingOption, JsonOption, block_plugins
from cpuaccel.cli.console import heading, print_json, say, section

if TYPE_CHECKING:
    from cpuaccel.pipeline import Options
    from cpuaccel.plugin.backend import Backend


REQUIRED = "none (required)"

MarkdownOption = Annotated[
    bool, typer.Option("--markdown", help="Print a Markdown table of what each backend requires.")
]


def plugins(
    pipeline: BlockingOption = None,
    json: JsonOption = False,
    markdown: MarkdownOption = False,
) -> None:
    """List the plugins, their backends and options, and those that failed to load or are blocked.

    A backend takes a model in one form and returns it in another, such as module -> script. In a
    pipeline, each backend must take the form that the one before it returns. Set options in a
    pipeline file, or in Python with a Step.
    """
    from cpuaccel.plugin.manager import plugin_host

    if json and markdown:
        raise typer.BadParameter("pass one of --json and --markdown, got both")
    block_plugins(pipeline)
    found = plugin_host()
    if markdown:
        say(requirements_table(found.backends))
        return
    offers: dict[str, list[type[Backend[Options]]]] = {}
    for name, backend in sorted(found.backends.items()):
        offers.setdefault(found.origins[name], []).append(backend)
    if json:
        print_json(
            {
                "plugins": [
                    {"plugin": plugin, "backends": [_describe(b) for b in backends]}
                    for plugin, backends in offers.items()
                ],
                "broken_plugins": [asdict(broken) for broken in found.broken],
                "blocked_plugins": [asdict(blocked) for blocked in found.blocked],
            }
        )
        return
    for plugin, backends in offers.items():
        heading(plugin)
        for backend in backends:
            _show(backend)
    section("Failed to load", (f"{broken.plugin}: {broken.reason}" for broken in found.broken))
    section("Blocked", (f"{blocked.plugin}: by {blocked.by}" for blocked in found.blocked))


def _show(backend: "type[Backend[Options]]") -> None:
    say(f"  {backend.name}   {backend.takes} -> {backend.gives}")
    say(f"    {backend.summary}")
    if backend.before:
        say(f"    before    {', '.join(sorted(backend.before))}")
    if backend.excludes:
        say(f"    excludes  {', '.join(sorted(backend.excludes))}")
    if backend.requires:
        say("    requires  " + "; or ".join(", ".join(r) for r in backend.requires))
    for name, field in backend.Options.model_fields.items():
        default = REQUIRED if field.is_required() else as_toml(field.default)
        say(f"    option    {name}: {type_name(field.annotation)}, default {default}")


def _describe(backend: "type[Backend[Options]]") -> dict[str, object]:
    return {
        "name": backend.name,
        "summary": backend.summary,
        "takes": backend.takes,
        "gives": backend.gives,
        "before": sorted(backend.before),
        "excludes": dict(backend.excludes),
        "requires": backend.requires,
        "options": _options(backend),
    }


def _options(backend: "type[Backend[Options]]") -> list[Mapping[str, object]]:
    return [
        {
            "name": name,
            "type": type_name(field.annotation),
            "default": REQUIRED if field.is_required() else _plain(field.default),
        }
        for name, field in backend.Options.model_fields.items()
    ]


def type_name(annotation: object) -> str:
    """Name a type as users write it: ``float or none``, ``"O0" or "O1"``, ``list of str``."""
    arguments = get_args(annotation)
    origin = get_origin(annotation)
    if origin is Annotated:
        return type_name(arguments[0])
    if origin is Literal:
        return " or ".join(map(dumps, arguments))
    if origin in (Union, types.UnionType):
        return " or ".join(map(type_name, arguments))
    if origin in (tuple, list):
        return f"list of {type_name(arguments[0])}"
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return " or ".join(f'"{member.value}"' for member in annotation)
    if annotation is type(None):
        return "none"
    if isinstance(annotation, type):
        return annotation.__name__
    return str(annotation)


def as_toml(default: object) -> str:
    """Return a default as it is written in a pipeline file."""
    # TOML writes booleans, numbers, strings and lists as JSON does, and has no null.
    return "not set" if default is None else dumps(_plain(default))


def _plain(value: object) -> object:
    """Return a default as data that JSON can represent."""
    if isinstance(value, enum.Enum):
        return value.value
    return [_plain(one) for one in value] if isinstance(value, tuple) else value


def requirements_table(backends: "Mapping[str, type[Backend[Options]]]") -> str:
    """Make a Markdown table with a row for each set of requirements; meeting one set is enough."""
    lines = ["| backend | torch | and |", "|---|---|---|"]
    for name, backend in sorted(backends.items()):
        for number, requirements in enumerate(backend.requires or ((),)):
            torch, others = _split(requirements)
            label = "or" if number else f"`{name}`"
            lines.append(f"| {label} | {torch} | {' and '.join(others) or 'nothing else'} |")
    return "\n".join(lines)


def _split(requirements: Sequence[str]) -> tuple[str, list[str]]:
    """Separate the versions of torch from the other requirements."""
    from packaging.requirements import Requirement

    parsed = [Requirement(text) for text in requirements]
    versions = {r.name: ", ".join(sorted(map(str, r.specifier), reverse=True)) for r in parsed}
    torch = versions.pop("torch", "") or "any"
    return torch, [f"{name} {version}".strip() for name, version in versions.items()]
