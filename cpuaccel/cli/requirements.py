"""What each backend needs, as a table for a document, from the backends' own declarations."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cpuaccel.plugin.backend import Backend, Options


def requirements_table(backends: "Mapping[str, type[Backend[Options]]]") -> str:
    """A table in Markdown: a row for each set of requirements, of which one is enough.

    Args:
        backends: backend classes by name.
    """
    lines = ["| backend | torch | and |", "|---|---|---|"]
    for name, backend in sorted(backends.items()):
        for number, requirements in enumerate(backend.requires or ((),)):
            torch, others = _split(requirements)
            label = "or" if number else f"`{name}`"
            lines.append(f"| {label} | {torch} | {' and '.join(others) or 'nothing else'} |")
    return "\n".join(lines)


def _split(requirements: Sequence[str]) -> tuple[str, list[str]]:
    """The versions of torch, and the other requirements in short."""
    from packaging.requirements import Requirement

    parsed = [Requirement(text) for text in requirements]
    versions = {r.name: ", ".join(sorted(map(str, r.specifier), reverse=True)) for r in parsed}
    torch = versions.pop("torch", "") or "any"
    return torch, [f"{name} {version}".strip() for name, version in versions.items()]
