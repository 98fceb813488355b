"""What was fused, what was left, and how much of the work that is."""

from .program import Program


def evidence(program: Program) -> dict[str, int | float | str]:
    return {**dict(sorted(program.fusions.items()))}
