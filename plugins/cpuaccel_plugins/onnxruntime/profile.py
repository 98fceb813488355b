"""Evidence of what ONNX Runtime executed, from the profile of one call."""

import json
from collections import Counter
from collections.abc import Set
from pathlib import Path

from cpuaccel import BackendError
from cpuaccel_plugins.onnxruntime.session import PROVIDER

LAYOUT = frozenset({"ReorderInput", "ReorderOutput"})
"""Operators of ONNX Runtime that only move data."""


def execution_evidence(profile: Path, exported: Set[str]) -> dict[str, int | float | str]:
    """Count nodes in a profile, fused if not in ``exported``, and check the provider."""
    executed = [
        event["args"]
        for event in json.loads(profile.read_text())
        if event["cat"] == "Node" and event["name"].endswith("_kernel_time")
    ]
    providers = Counter(str(node["provider"]) for node in executed)
    if set(providers) != {PROVIDER}:
        counts = ", ".join(f"{n} nodes on {name}" for name, n in providers.items())
        raise BackendError(
            f"ONNX Runtime must run on {PROVIDER}, but ran {counts or 'no nodes'}",
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
