import ast
from pathlib import Path

import pytest

import cpuaccel
from tests.conftest import Python

CORE = Path(cpuaccel.__file__).parent
HEAVY = ("torch", "pydantic", "pluggy", "cpuaccel_plugins", "numpy", "transformers", "typer")
ENGINES = ("intel_extension_for_pytorch", "optimum", "transformers", "onnxruntime", "openvino")


def imported_by(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found


def test_the_core_never_imports_the_built_in_plugins() -> None:
    files = sorted(CORE.rglob("*.py"))
    assert len(files) > 20
    offenders = [
        str(path.relative_to(CORE))
        for path in files
        if any(name.partition(".")[0] == "cpuaccel_plugins" for name in imported_by(path))
    ]
    assert offenders == []


def test_the_built_in_plugins_use_the_public_door_only() -> None:
    plugins = pytest.importorskip("cpuaccel_plugins")
    for path in Path(plugins.__file__).parent.rglob("*.py"):
        inside = {n for n in imported_by(path) if n.startswith("cpuaccel.")}
        assert inside == set(), path


def test_importing_is_inert(python: Python) -> None:
    done = python(
        "import sys, cpuaccel\n"
        f"print([name for name in {HEAVY} if name in sys.modules])\n"
        "dir(cpuaccel)\n"
        "print('torch' in sys.modules)\n"
    )
    assert done.stdout == "[]\nFalse\n"
    assert done.stderr == ""


def test_listing_backends_imports_no_engine(python: Python) -> None:
    done = python(
        "import sys, cpuaccel\n"
        "assert 'jit' in cpuaccel.backends()\n"
        f"print([name for name in {ENGINES} if name in sys.modules])\n"
    )
    assert done.stdout == "[]\n"


def test_every_name_exported_is_there() -> None:
    for name in cpuaccel.__all__:
        assert getattr(cpuaccel, name) is not None
    assert set(cpuaccel.__all__) <= set(dir(cpuaccel))


def test_a_name_that_is_not_exported() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'accelerate'"):
        cpuaccel.accelerate  # noqa: B018
