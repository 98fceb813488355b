import importlib.metadata
import logging
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import cpuaccel
from cpuaccel.plugin.manager import ENTRY_POINT_GROUP, PluginHost
from tests.conftest import Offer, Plugin, Python
from tests.fake_backends import FailingApply, Faithful, batch, encoder

HEAD = """
import cpuaccel

class {cls}(cpuaccel.Backend[cpuaccel.Options]):
    name = "{name}"
    summary = "made by a test"
    takes = cpuaccel.Form.MODULE
    gives = cpuaccel.Form.MODULE

    def apply(self, model, context):
        return cpuaccel.Applied(model, evidence={{"done": 1}})
"""
OFFERS = """
@cpuaccel.hookimpl
def cpuaccel_backends():
    return [{cls}]
"""


def plugin(name: str) -> str:
    cls = name.title().replace("_", "")
    return (HEAD + OFFERS).format(cls=cls, name=name)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator["Site"]:
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield Site(tmp_path)
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", "") and name.startswith("t_"):
            del sys.modules[name]


class Site:
    """A folder of installed distributions."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def install(self, module: str, source: str, version: str = "1.2.3") -> None:
        (self.path / f"{module}.py").write_text(textwrap.dedent(source), encoding="utf-8")
        info = self.path / f"dist_of_{module}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: dist-of-{module}\nVersion: {version}\n", encoding="utf-8"
        )
        (info / "entry_points.txt").write_text(
            f"[{ENTRY_POINT_GROUP}]\n{module} = {module}\n", encoding="utf-8"
        )

    def host(self) -> PluginHost:
        return PluginHost(
            entry_point
            for distribution in importlib.metadata.distributions(path=[str(self.path)])
            for entry_point in distribution.entry_points
            if entry_point.group == ENTRY_POINT_GROUP
        )

    def only_broken(self, caplog: pytest.LogCaptureFixture) -> str:
        """The reason why the one broken plugin failed to load, next to one that works."""
        self.install("t_works", plugin("works"))
        with caplog.at_level(logging.WARNING, logger="cpuaccel"):
            host = self.host()
        assert list(host.backends) == ["works"]
        assert host.origins == {"works": "t_works (dist-of-t_works 1.2.3)"}
        (broken,) = host.broken
        assert broken.plugin == "t_broken (dist-of-t_broken 0.9)"
        (record,) = caplog.records
        assert record.getMessage() == f"plugin {broken.plugin} failed to load: {broken.reason}"
        return broken.reason


def test_plugins_are_found_through_their_entry_points(site: Site) -> None:
    site.install("t_one", plugin("one"))
    site.install("t_two", plugin("two"), "2.0")
    host = site.host()
    assert sorted(host.backends) == ["one", "two"]
    assert host.origins["two"] == "t_two (dist-of-t_two 2.0)"
    assert host.broken == []


BROKEN = {
    "raises on import": ("raise RuntimeError('no licence')", "RuntimeError: no licence"),
    "ends the process on import": ("raise SystemExit(3)", "SystemExit: 3"),
    "imports a missing module": (
        "import surely_no_module",
        "ModuleNotFoundError: No module named 'surely_no_module'",
    ),
    "has a syntax error": ("def f(:", "SyntaxError: invalid syntax"),
    "misspells a hook": (
        plugin("broken").replace("def cpuaccel_backends", "def cpuaccel_backend"),
        "PluginValidationError: unknown hook 'cpuaccel_backend'",
    ),
    "takes unknown hook arguments": (
        plugin("broken").replace("cpuaccel_backends()", "cpuaccel_backends(config)"),
        "Argument(s) {'config'} are declared in the hookimpl but can not be found in the hookspec",
    ),
    "offers something else than a backend": (
        HEAD.format(cls="Broken", name="broken") + OFFERS.format(cls="Broken, 'jit'"),
        "PluginValidationError: cpuaccel_backends returned 'jit', which is not a Backend class",
    ),
    "offers a backend without attributes": (
        plugin("broken").replace('    name = "broken"\n', "").replace("    takes", "    has"),
        "PluginValidationError: Broken has no name and no takes",
    ),
    "offers a backend without apply": (
        plugin("broken").replace("def apply", "def applies"),
        "PluginValidationError: Broken does not define apply",
    ),
    "offers a backend with a string as form": (
        plugin("broken").replace("takes = cpuaccel.Form.MODULE", "takes = 'module'"),
        "Broken.takes and .gives must be members of cpuaccel.Form",
    ),
    "offers a backend with other options": (
        plugin("broken").replace("    summary", "    Options = dict\n    summary"),
        "Broken.Options must be a subclass of cpuaccel.Options",
    ),
    "offers a name of another plugin": (
        plugin("works"),
        "PluginValidationError: backend name 'works' is already used by ",
    ),
    "offers a name twice": (
        HEAD.format(cls="Broken", name="broken") + OFFERS.format(cls="Broken, Broken"),
        "PluginValidationError: backend name 'broken' is already used by t_broken",
    ),
    "raises in the hook": (
        plugin("broken").replace("return [", "raise ValueError('not today') or ["),
        "ValueError: not today",
    ),
    "returns something else": (
        plugin("broken").replace("return [Broken]", "return 3"),
        "TypeError: 'int' object is not iterable",
    ),
}


@pytest.mark.parametrize(("source", "reason"), BROKEN.values(), ids=list(BROKEN))
def test_a_broken_plugin_is_logged_and_not_used(
    site: Site, caplog: pytest.LogCaptureFixture, source: str, reason: str
) -> None:
    site.install("t_broken", source, "0.9")
    if "is already used by " in reason and "t_broken" not in reason:
        # Plugins are loaded in the order of their names: the other one must come first.
        site.install("t_a_works", plugin("works"))
        host = site.host()
        (broken,) = host.broken
        assert broken.plugin == "t_broken (dist-of-t_broken 0.9)"
        assert broken.reason.endswith("is already used by t_a_works (dist-of-t_a_works 1.2.3)")
        assert host.origins == {"works": "t_a_works (dist-of-t_a_works 1.2.3)"}
        return
    assert reason in site.only_broken(caplog)


def test_hooks_of_a_broken_plugin_are_not_called(site: Site) -> None:
    source = """
    import cpuaccel

    @cpuaccel.hookimpl
    def cpuaccel_after_step(step, outcome):
        raise AssertionError("called, though it failed to load")

    @cpuaccel.hookimpl
    def cpuaccel_backends(config):
        return []
    """
    site.install("t_broken", source)
    host = site.host()
    assert len(host.broken) == 1
    step = cpuaccel.Step("any")
    host.observe("cpuaccel_after_step", step=step, outcome=None)
    assert "t_broken" not in str(host._manager.list_name_plugin())


def test_a_module_with_two_entry_points_is_registered_once(site: Site) -> None:
    site.install("t_works", plugin("works"))
    (site.path / "dist_of_t_works-1.2.3.dist-info/entry_points.txt").write_text(
        "[cpuaccel]\nfirst = t_works\nsecond = t_works\n", encoding="utf-8"
    )
    host = site.host()
    assert host.origins == {"works": "first (dist-of-t_works 1.2.3)"}
    (broken,) = host.broken
    assert broken.plugin == "second (dist-of-t_works 1.2.3)"
    assert "already registered as first" in broken.reason


def test_an_unknown_backend_error_names_broken_plugins(site: Site, python: Python) -> None:
    site.install("t_broken", "raise RuntimeError('no licence')", "0.9")
    site.install("t_works", plugin("works"))
    code = """
import torch, cpuaccel
assert "works" in cpuaccel.backends()
try:
    cpuaccel.explain(torch.nn.Identity(), ["broken"])
except cpuaccel.PipelineError as error:
    print(error)
fast = cpuaccel.optimize(torch.nn.ReLU(), ["works"], example_inputs=torch.ones(2, 2))
print(fast.report.applied)
"""
    done = python(code, path=(site.path,))
    assert (
        "Failed to load: t_broken (dist-of-t_broken 0.9) (RuntimeError: no licence)." in done.stdout
    )
    assert done.stdout.endswith("('works',)\n")
    assert done.stderr.count("failed to load") == 1


def test_observers_are_called_for_every_step(offer: Offer, observe: Callable[..., None]) -> None:
    offer(Faithful, FailingApply)
    seen: list[str] = []

    def cpuaccel_before_step(step: cpuaccel.Step, model: object) -> None:
        seen.append(f"before {step.backend} of a {type(model).__name__}")

    def cpuaccel_after_step(step: cpuaccel.Step, outcome: cpuaccel.Outcome) -> None:
        seen.append(f"after {step.backend}: {outcome.status}")

    observe(cpuaccel_before_step=cpuaccel_before_step, cpuaccel_after_step=cpuaccel_after_step)
    cpuaccel.optimize(encoder(), ["failing_apply", "faithful"], example_inputs=batch())
    assert seen == [
        "before failing_apply of a MaskedEncoder",
        "after failing_apply: failed",
        "before faithful of a MaskedEncoder",
        "after faithful: applied",
    ]


def test_observers_that_raise_do_not_affect_others(
    offer: Offer, observe: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    offer(Faithful)
    seen: list[str] = []

    def note(step: cpuaccel.Step) -> None:
        seen.append(step.backend)

    def fail(step: cpuaccel.Step) -> None:
        raise RuntimeError("the metrics server is down")

    observe(cpuaccel_before_step=note, cpuaccel_after_step=note)
    observe(cpuaccel_before_step=fail, cpuaccel_after_step=fail)
    observe(cpuaccel_before_step=note, cpuaccel_after_step=note)
    fast = cpuaccel.optimize(encoder(), ["faithful"], example_inputs=batch())
    assert fast.report.applied == ("faithful",)
    assert seen == ["faithful"] * 4
    assert [record.getMessage() for record in caplog.records] == [
        "plugin observer 2: hook cpuaccel_before_step failed",
        "plugin observer 2: hook cpuaccel_after_step failed",
    ]


def test_unregister_removes_the_backends() -> None:
    host = PluginHost([])
    plugin = Plugin(cpuaccel_backends=lambda: [Faithful])
    host.register(plugin, "mine")
    assert host.origins == {"faithful": "mine"}
    host.unregister(plugin)
    assert host.backends == {}
    assert host.origins == {}


def test_the_built_in_plugins_are_found_like_any_other() -> None:
    assert cpuaccel.plugin_host().origins["jit"] == f"jit (cpuaccel {cpuaccel.__version__})"
