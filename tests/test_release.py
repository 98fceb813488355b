"""What is released: the wheel and the source archive have every file, and work when installed."""

import json
import re
import runpy
import shutil
import subprocess
import sys
import tarfile
import zipfile
from configparser import ConfigParser
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import cpuaccel
from tests.required import ROOT, requires

pytestmark = requires("torch==2.13.*", "setuptools>=68")

BUILD = """
import os, sys
from setuptools import build_meta
print(getattr(build_meta, sys.argv[1])(sys.argv[2]))
"""
SMOKE = """
import sys, torch, cpuaccel
assert cpuaccel.__file__.startswith(sys.prefix), cpuaccel.__file__
model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.GELU()).eval()
fast = cpuaccel.optimize(model, example_inputs=torch.ones(2, 8))
fast(torch.ones(2, 8))
assert fast.report.calls == {"optimized": 1}, fast.report
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tree: building writes into it."""
    folder = tmp_path_factory.mktemp("release") / "source"
    skipped = shutil.ignore_patterns(
        ".*cache", ".git", "__pycache__", "*.egg-info", "site", "build"
    )
    shutil.copytree(ROOT, folder, ignore=skipped)
    return folder


def build(source: Path, kind: str) -> Path:
    output = source.parent / "dist"
    output.mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-c", BUILD, f"build_{kind}", str(output)],
        cwd=source,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return output / done.stdout.split()[-1]


@pytest.fixture(scope="module")
def wheel(source: Path) -> Path:
    return build(source, "wheel")


def _shipped() -> set[str]:
    """The files of both packages in the tree, by their path in the wheel."""
    roots = (ROOT, ROOT / "plugins")
    return {
        path.relative_to(root).as_posix()
        for root, package in zip(roots, ("cpuaccel", "cpuaccel_plugins"))
        for path in (root / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_the_wheel_has_every_file(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert len(_shipped()) > 200
    assert _shipped() - names == set()
    assert {name.partition("/")[0] for name in names} == {
        *("cpuaccel", "cpuaccel_plugins"),
        f"cpuaccel-{cpuaccel.__version__}.dist-info",
    }


def test_the_metadata(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    folder = f"cpuaccel-{cpuaccel.__version__}.dist-info"
    metadata = archive.read(f"{folder}/METADATA").decode()
    assert f"\nVersion: {cpuaccel.__version__}\n" in metadata
    assert "\nRequires-Python: >=3.11\n" in metadata
    assert "\nDescription-Content-Type: text/markdown\n" in metadata
    assert "Apache" in metadata
    assert any(name.endswith("LICENSE") for name in archive.namelist())


def test_the_source_archive_has_docs_and_tests(source: Path) -> None:
    with tarfile.open(build(source, "sdist")) as archive:
        names = archive.getnames()
    inside = {name.partition("/")[2] for name in names}
    assert {
        *("README.md", "CHANGELOG.md", "mkdocs.yml", "Makefile", "docs/tutorial.md"),
        *("docs/images/bert-base.svg", "tests/conftest.py", "requirements/modern.txt"),
        *("scripts/make-venv.sh", "examples/common/__init__.py", "plugins/cpuaccel_plugins/jit.py"),
    } <= inside


def test_it_works_in_an_environment_of_its_own(wheel: Path, tmp_path: Path) -> None:
    """With torch and the engines of this environment, but without its cpuaccel."""
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    (site,) = venv.glob("lib/python*/site-packages")
    zipfile.ZipFile(wheel).extractall(site)  # what pip does with a pure wheel, without scripts
    # After the environment's own folder, so that the wheel's package is found first.
    (site / "others.pth").write_text("\n".join(p for p in sys.path if p.endswith("site-packages")))
    python = str(venv / "bin" / "python")
    subprocess.run([python, "-I", "-c", SMOKE], check=True, cwd=tmp_path)
    done = subprocess.run(
        [python, "-I", "-m", "cpuaccel", "plugins", "--json"],
        check=True,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    found = {b["name"] for p in json.loads(done.stdout)["plugins"] for b in p["backends"]}
    assert {"bettertransformer", "jit", "onednn", "openvino", "openvino_int8"} <= found


def _pins(stack: str) -> dict[str, str]:
    lines = (ROOT / "requirements" / f"{stack}.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.partition("==")[::2] for line in lines if "==" in line)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pairs}


def _extras() -> dict[str, list[Requirement]]:
    parser = ConfigParser()
    parser.read(ROOT / "setup.cfg")
    section = parser["options.extras_require"]
    return {
        extra: [Requirement(line) for line in text.split("\n") if line]
        for extra, text in section.items()
    }


def test_the_changelog_begins_with_this_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## \[(\d.+?)\]", text, re.M)
    assert newest is not None
    assert newest[1] == cpuaccel.__version__


def test_every_extra_is_used_before_a_release() -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "use_extra.py"))
    assert set(script["USES"]) == {*_extras(), "none"}


def test_the_page_of_backends_has_every_extra() -> None:
    page = (ROOT / "docs" / "backends.md").read_text(encoding="utf-8")
    section = page.partition("## What to install")[2]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    assert set(_extras()) <= {name for row in rows for name in row.split("`")[1::2]}


@pytest.mark.parametrize("extra", _extras())
def test_a_stack_is_tested_with_every_extra(extra: str) -> None:
    """Each extra can be had with the pinned versions of a stack, all of its packages together."""

    def fits(stack: str) -> bool:
        pins = _pins(stack)
        return all(r.name in pins and r.specifier.contains(pins[r.name]) for r in _extras()[extra])

    assert [stack for stack in ("modern", "classic", "demo") if fits(stack)]
