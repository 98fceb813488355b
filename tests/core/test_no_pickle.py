"""Reading a file must not execute its content."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("cpuaccel", "plugins", "benchmarks", "examples", "scripts", "tests")

UNPICKLING = {
    ("pickle", "load"),
    ("pickle", "loads"),
    ("pickle", "Unpickler"),
    ("joblib", "load"),
    ("dill", "load"),
    ("dill", "loads"),
    ("cloudpickle", "load"),
    ("cloudpickle", "loads"),
    ("marshal", "load"),
    ("marshal", "loads"),
    ("shelve", "open"),
    ("pd", "read_pickle"),
    ("pandas", "read_pickle"),
}
ONLY_WITH = {
    ("torch", "load"): ("weights_only", True),
    ("np", "load"): ("allow_pickle", False),
    ("numpy", "load"): ("allow_pickle", False),
}
OWN = (
    "tests",
    "cpuaccel/testing",
)
"""Folders whose tests unpickle their own pickles, to check that models can be pickled."""

SENT = {
    Path("cpuaccel/tuning/workers/pickling.py"),  # a model to a worker of the search
    Path("cpuaccel/processes/transfer.py"),  # inputs and outputs of a ProcessPool
    Path("cpuaccel/processes/worker.py"),  # its own error, to check that it can be sent
}
"""Unpickle what a process of the same program sent, through anonymous memory or a pipe."""


def faults(source: str, *, own: bool = False) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if (node.module, alias.name) in {*UNPICKLING, *ONLY_WITH}:
                    yield f"line {node.lineno}: from {node.module} import {alias.name}"
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            called = (node.value.id, node.attr)
            if called in UNPICKLING and not (own and called == ("pickle", "loads")):
                yield f"line {node.lineno}: {'.'.join(called)}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = node.func.value
            called = (owner.id if isinstance(owner, ast.Name) else "", node.func.attr)
            if called in ONLY_WITH:
                name, wanted = ONLY_WITH[called]
                given = {k.arg: getattr(k.value, "value", None) for k in node.keywords}
                if given.get(name) is not wanted:
                    yield f"line {node.lineno}: {'.'.join(called)} without {name}={wanted}"


def test_nothing_in_the_project_unpickles_a_file() -> None:
    found = []
    files = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
    assert len(files) > 150
    for path in files:
        source = path.read_text(encoding="utf-8")
        place = path.relative_to(ROOT)
        own = any(place.is_relative_to(folder) for folder in OWN)
        if place not in SENT:
            found += [f"{place}, {fault}" for fault in faults(source, own=own)]
    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        "import torch\ntorch.load(f)",
        "import torch\ntorch.load(f, weights_only=False)",
        "import torch\ntorch.load(f, weights_only=chosen)",
        "from torch import load",
        "import pickle\npickle.load(f)",
        "import pickle\nread = pickle.loads",
        "from pickle import loads as read",
        "import numpy as np\nnp.load(f)",
        "import numpy as np\nnp.load(f, allow_pickle=True)",
        "import joblib\njoblib.load(f)",
    ],
)
def test_calls_that_are_found(source: str) -> None:
    assert len(list(faults(source))) == 1


def test_calls_that_are_allowed() -> None:
    assert not list(faults("torch.load(f, weights_only=True)\nnp.load(f, allow_pickle=False)"))
