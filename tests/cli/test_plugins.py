import importlib.metadata
import json

import pytest

from cpuaccel.plugin import manager as plugins
from cpuaccel.plugin.manager import PluginHost
from tests.cli.conftest import Run


def test_backends_with_their_options(run: Run) -> None:
    ran = run("plugins")
    assert ran.code == 0
    assert "jit   module -> script" in ran.out
    assert "freeze: bool, default True" in ran.out


def test_as_json(run: Run) -> None:
    data = run("plugins", "--json").data
    offered = {b["name"]: b for p in data["plugins"] for b in p["backends"]}
    assert offered["jit"]["takes"] == "module"
    assert offered["jit"]["gives"] == "script"
    assert offered["jit"]["requires"] == [["torch>=1.13"]]
    freeze = {"name": "freeze", "type": "bool", "default": True}
    assert freeze in offered["jit"]["options"]
    assert data["broken_plugins"] == []


@pytest.mark.parametrize("arguments", [("plugins",), ("doctor",)])
def test_a_broken_plugin_is_shown_with_its_reason(
    run: Run, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    broken = importlib.metadata.EntryPoint("sad", "no_such_module_anywhere", "cpuaccel")
    found = PluginHost([broken])
    monkeypatch.setattr(plugins, "plugin_host", lambda: found)
    ran = run(*arguments)
    assert ran.code == 0
    assert "sad" in ran.out
    assert "No module named 'no_such_module_anywhere'" in ran.out
    (told,) = json.loads(run(*arguments, "--json").out)["broken_plugins"]
    assert told["plugin"] == "sad"
