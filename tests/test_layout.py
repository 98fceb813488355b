"""The layout of the code, read from its import statements: layers, folders, plugins."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import cpuaccel

CORE = Path(cpuaccel.__file__).parent
PLUGINS = CORE.parent / "plugins" / "cpuaccel_plugins"
MOST_MODULES = 12

# From top to bottom: a module imports from its own layer and from those below.
LAYERS = (
    {"__main__"},
    {"cli"},
    {"integrations", "testing"},
    {"processes"},
    {"api"},
    {"tuning"},
    {"optimized"},
    {"generation"},
    {"served_part"},
    {"serving"},
    {"artifact"},
    {"variants"},
    {"varying_numbers"},
    {"building"},
    {"planning"},
    {"checks"},
    {"plugin"},
    {"report"},
    {"pipeline"},
    {"model"},
    {"timing"},
    {"errors"},
)
LAYER = {name: depth for depth, names in enumerate(LAYERS) for name in names}


def _module_name(path: Path, root: Path) -> str:
    parts = (root.name, *path.relative_to(root).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imported(source: str, homes: dict[str, str]) -> set[str]:
    """Names of the modules that a source imports, wherever in it the statement is.

    `from cpuaccel import X` imports the home of X; a submodule imported by name from its package
    is imported too.
    """
    modules = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports are not used in this project"
            assert node.module is not None
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                if node.module == "cpuaccel" and alias.name in homes:
                    modules.add(homes[alias.name])
                elif _is_module(name):
                    modules.add(name)
                else:
                    modules.add(node.module)
    return modules


def _is_module(name: str) -> bool:
    path = CORE.parent.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def _edges() -> Iterator[tuple[str, str]]:
    """All imports inside the core, as pairs of the importing and the imported module."""
    for path in sorted(CORE.rglob("*.py")):
        importing = _module_name(path, CORE)
        if importing == "cpuaccel":
            continue  # the facade has all names
        for imported in _imported(path.read_text(encoding="utf-8"), cpuaccel._HOME):
            if imported.startswith("cpuaccel."):
                yield importing, imported


def _layer(module: str) -> int:
    return LAYER[module.split(".")[1]]


def _folders() -> list[Path]:
    inits = [*CORE.rglob("__init__.py"), *PLUGINS.rglob("__init__.py")]
    return sorted(init.parent for init in inits)


def test_every_module_has_a_layer() -> None:
    names = {_module_name(path, CORE) for path in CORE.rglob("*.py")} - {"cpuaccel"}
    assert {name.split(".")[1] for name in names} <= set(LAYER)


def test_imports_point_downwards() -> None:
    edges = list(_edges())
    assert len(edges) > 100
    assert {edge for edge in edges if _layer(edge[1]) < _layer(edge[0])} == set()


def test_no_folder_has_too_many_modules() -> None:
    sizes = {folder: len(list(folder.glob("*.py"))) for folder in _folders()}
    assert len(sizes) > 20
    large = {folder.name: size for folder, size in sizes.items() if size > MOST_MODULES}
    assert not large, large


def test_the_core_imports_no_built_in_plugin() -> None:
    for path in CORE.rglob("*.py"):
        imported = _imported(path.read_text(encoding="utf-8"), {})
        assert not {n for n in imported if n.partition(".")[0] == "cpuaccel_plugins"}, path


def test_built_in_plugins_import_public_names_only() -> None:
    paths = sorted(PLUGINS.rglob("*.py"))
    assert len(paths) > 50
    for path in paths:
        imported = _imported(path.read_text(encoding="utf-8"), {})
        assert not {name for name in imported if name.startswith("cpuaccel.")}, path


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("from cpuaccel import optimize", "cpuaccel.api"),
        ("from cpuaccel.model import signature", "cpuaccel.model.signature"),
        ("from cpuaccel.model.signature import Signature", "cpuaccel.model.signature"),
        ("def f():\n    import cpuaccel.api", "cpuaccel.api"),
        ("if TYPE_CHECKING:\n    from cpuaccel.api import optimize", "cpuaccel.api"),
    ],
)
def test_imports_are_read_wherever_they_are(source: str, expected: str) -> None:
    assert _imported(source, cpuaccel._HOME) == {expected}
