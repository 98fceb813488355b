"""The third-party plugin, installed with pip, in separate processes."""

import importlib.metadata
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Python

SOURCE = Path(__file__).parents[2] / "examples" / "third_party_plugin"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for needed in ("pip", "setuptools"):
        try:  # from metadata: importing setuptools replaces distutils
            importlib.metadata.version(needed)
        except importlib.metadata.PackageNotFoundError:
            pytest.skip(f"{needed} is needed to install without a network")
    # Building leaves files among the sources.
    source = tmp_path_factory.mktemp("source") / "plugin"
    shutil.copytree(SOURCE, source, ignore=shutil.ignore_patterns("build", "*.egg-info"))
    target = tmp_path_factory.mktemp("site")
    offline = ["--no-deps", "--no-index", "--no-build-isolation"]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", *offline, "--target", target, source],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return target


def test_its_entry_point_is_found_and_it_composes_with_jit(installed: Path, python: Python) -> None:
    code = """
import torch, cpuaccel
print(cpuaccel.plugin_host().origins["fold_bn"])
model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)).eval()
fast = cpuaccel.optimize(
    model, ["fold_bn", "jit"], example_inputs=torch.ones(2, 3, 8, 8), strict=True
)
print(fast.report.applied, dict(fast.report.outcomes[0].evidence))
images = torch.randn(5, 3, 9, 9)
torch.testing.assert_close(fast(images), model(images).detach(), rtol=1e-4, atol=1e-5)
print(dict(fast.report.calls))
"""
    assert python(code, path=(installed,)).stdout.splitlines() == [
        "fold_bn (cpuaccel-fold-bn 0.1.0)",
        "('fold_bn', 'jit') {'folded': 1}",
        "{'optimized': 1}",
    ]


def test_its_own_tests_pass(installed: Path, tmp_path: Path) -> None:
    tests = shutil.copy(SOURCE / "test_fold_bn.py", tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tests)],
        env={**os.environ, "PYTHONPATH": str(installed)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout


def test_without_it_the_backend_does_not_exist(python: Python) -> None:
    done = python("import cpuaccel; print('fold_bn' in cpuaccel.backends())")
    assert done.stdout == "False\n"
