"""What ONNX Runtime really executed, read from the profile of one call."""

import json
from collections import Counter
from collections.abc import Set
from pathlib import Path

from cpuaccel import BackendError
from cpuaccel_plugins.onnxruntime.session import PROVIDER

LAYOUT = frozenset({"ReorderInput", "ReorderOutput"})
"""Operators of ONNX Runtime's own that only move data."""


def execution_evidence(profile: Path, exported: Set[str]) -> dict[str, int | float | str]:
    """Count the nodes that ran and those that were fused, and insist on the CPU provider.

    Args:
        profile: what ONNX Runtime wrote.
        exported: operators that the model had before; any other is one that it fused.

    Raises:
        BackendError: nothing ran, or not where it was asked to.
    """
    executed = [
        event["args"]
        for event in json.loads(profile.read_text())
        if event["cat"] == "Node" and event["name"].endswith("_kernel_time")
    ]
    providers = Counter(str(node["provider"]) for node in executed)
    if set(providers) != {PROVIDER}:
        found = ", ".join(f"{n} nodes on {name}" for name, n in providers.items())
        raise BackendError(
            f"ONNX Runtime was asked for {PROVIDER}, and executed {found or 'no node at all'}",
            "Leave onnxruntime out",
        )
    operators = Counter(str(node["op_name"]) for node in executed)
    return {
        "provider": PROVIDER,
        "nodes": len(executed),
        **{
            f"fused_{operator}": count
            for operator, count in sorted(operators.items())
            if operator not in exported | LAYOUT
        },
    }
