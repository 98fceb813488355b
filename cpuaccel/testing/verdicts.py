"""Tests of ``check`` and ``accepts``: they always return a verdict and have no side effects."""

import functools
import json
import os
import subprocess
import sys

import pytest
import torch

import cpuaccel
from cpuaccel.testing.hosts import ODD_HOSTS
from cpuaccel.testing.subject import Subject

_IMPORTS = """
import importlib, json, operator, sys
import torch, cpuaccel.api
module, name, options = json.loads(sys.argv[1])
host = cpuaccel.host()
def imported():
    return {m.partition(".")[0] for m in sys.modules} - sys.stdlib_module_names
before = imported()
backend = operator.attrgetter(name)(importlib.import_module(module))
listed = imported()
backend(backend.Options(**options)).check(host)
print(json.dumps({
    "listing": sorted(listed - before - {module.partition(".")[0]}),
    "check": sorted(imported() - listed),
}))
"""


class VerdictsContract(Subject):
    """``check`` and ``accepts`` neither raise nor import the engine; each no has a remedy."""

    def test_check_returns_a_verdict_for_this_host(self) -> None:
        assert_complete(self.instance().check(cpuaccel.host()))

    @pytest.mark.parametrize("host", ODD_HOSTS.values(), ids=list(ODD_HOSTS))
    def test_check_returns_a_verdict_for_odd_hosts(self, host: cpuaccel.Host) -> None:
        assert_complete(self.instance().check(host))

    def test_check_refuses_a_host_without_the_requirements(self) -> None:
        if self.backend_class.requires:
            assert not self.instance().check(ODD_HOSTS["nothing installed"])

    def test_listing_and_check_import_no_engine(self) -> None:
        backend = self.backend_class
        arguments = json.dumps([backend.__module__, backend.__qualname__, dict(self.options)])
        # The plugin's module may be on this process's path only.
        imported = _imported(arguments, os.pathsep.join(filter(None, sys.path)))
        assert imported == {"listing": [], "check": []}, (
            "import the engine inside apply, not at the top of the module and not in check"
        )

    def test_accepts_takes_the_model_under_test(self) -> None:
        model = self.model()
        signature = cpuaccel.Signature.from_inputs(model, self.example_inputs())
        if self.backend_class.takes is cpuaccel.Form.MODULE:
            verdict = self.instance().accepts(model, signature)
            assert verdict, f"override model() to return one that the backend accepts: {verdict}"

    @pytest.mark.parametrize(
        "model", [torch.nn.Identity(), torch.nn.Linear(2, 2)], ids=["no weights", "one layer"]
    )
    def test_accepts_returns_a_verdict_for_odd_models(self, model: torch.nn.Module) -> None:
        for inputs in (torch.ones(1, 2), torch.ones(2)):
            signature = cpuaccel.Signature.from_inputs(model.eval(), inputs)
            assert_complete(self.instance().accepts(model, signature))

    def test_accepts_returns_a_verdict_without_tensor_inputs(self) -> None:
        model = torch.nn.Identity()
        signature = cpuaccel.Signature.from_inputs(model, {"input": 3})
        assert_complete(self.instance().accepts(model, signature))


@functools.cache
def _imported(arguments: str, path: str) -> dict[str, list[str]]:
    """What a new process imports that lists and checks a backend."""
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", _IMPORTS, arguments],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    imported: dict[str, list[str]] = json.loads(done.stdout.splitlines()[-1])
    return imported


def assert_complete(verdict: cpuaccel.Verdict) -> None:
    """Assert that a verdict is a yes, or a no with a reason and a remedy."""
    assert isinstance(verdict, cpuaccel.Verdict)
    if verdict:
        return
    assert verdict.reason, "a no needs a reason"
    assert verdict.remedy, "a no needs a remedy"
    assert not verdict.reason.endswith("."), "leave the full stop out: cpuaccel adds it"
    assert not verdict.remedy.endswith("."), "leave the full stop out: cpuaccel adds it"
