"""What would end the process or come out unchanged is refused before IPEX is imported."""

from pathlib import Path

import pytest
import torch

import cpuaccel
from tests.conftest import Python

IPEX = "intel-extension-for-pytorch"
ASK = """
import sys
import torch, cpuaccel
backend = cpuaccel.backends()["ipex"]
print(cpuaccel.explain(torch.nn.Linear(2, 2), ["ipex"]).steps[0].verdict)
fast = cpuaccel.optimize(
    torch.nn.Linear(2, 2), ["ipex", "jit"], example_inputs=torch.ones(1, 2)
)
print(fast.report.applied)
print("intel_extension_for_pytorch" in sys.modules)
"""


def distribution(site: Path, name: str, version: str) -> None:
    """Metadata in front of the real package's, which says another version."""
    folder = site / f"{name.replace('-', '_')}-{version}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


@pytest.mark.parametrize(
    ("package", "version", "reason"),
    [
        ("torch", "2.7.1", f"{IPEX} 2.8.0 works with torch 2.8 only, and this environment has"),
        ("torch", "2.9.0", f"{IPEX} 2.8.0 works with torch 2.8 only, and this environment has"),
        (IPEX, "2.7.0", f"{IPEX} 2.7.0 works with torch 2.7 only, and this environment has"),
    ],
)
def test_another_torch_minor_is_refused_without_an_import(
    package: str, version: str, reason: str, tmp_path: Path, python: Python
) -> None:
    distribution(tmp_path, package, version)
    verdict, applied, imported = python(ASK, path=(tmp_path,)).stdout.splitlines()
    assert verdict.startswith(reason)
    assert "Create an environment with torch==2.8.0" in verdict
    assert applied == "('jit',)"
    assert imported == "False"


def test_a_processor_without_avx2_is_refused_without_an_import(python: Python) -> None:
    code = """
import dataclasses, sys
import cpuaccel
host = dataclasses.replace(cpuaccel.host(), isa=frozenset({"sse4_2", "avx"}))
backend = cpuaccel.backends()["ipex"]
print(backend(backend.Options()).check(host))
print(backend(backend.Options()).check(cpuaccel.host()))
print("intel_extension_for_pytorch" in sys.modules)
"""
    assert python(code).stdout.splitlines() == [
        "IPEX needs AVX2, which this processor does not have. Use jit or bettertransformer, which "
        "need no IPEX",
        "yes",
        "False",
    ]


def test_a_script_module_is_refused() -> None:
    script = torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2))
    with pytest.raises(cpuaccel.PipelineError) as caught:
        cpuaccel.optimize(script, ["ipex"], example_inputs=torch.ones(1, 2))
    (problem,) = caught.value.problems
    assert problem.startswith("ipex takes a module, but the model is a script already")


@pytest.mark.filterwarnings("ignore:JIT pass will be deprecated:UserWarning")
def test_a_module_in_which_ipex_replaces_nothing_fails() -> None:
    """IPEX replaces nothing inside a script."""
    script = torch.jit.trace(torch.nn.Linear(64, 64).eval(), torch.ones(1, 64))
    model = torch.nn.Sequential(script, torch.nn.ReLU()).eval()
    fast = cpuaccel.optimize(model, ["ipex"], example_inputs=torch.ones(1, 64))
    (outcome,) = fast.report.outcomes
    assert outcome.status == "failed"
    assert outcome.reason == "ipex.optimize replaced no module of Sequential"
