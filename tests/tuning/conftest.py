import importlib.metadata
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from cpuaccel.plugin.manager import ENTRY_POINT_GROUP, PluginHost, plugin_host
from cpuaccel.testing import MaskedEncoder
from tests.brief_searches import measure_briefly
from tests.caches import use_cache
from tests.required import unmet
from tests.tuning.misbehaving import SOURCES

Install = Callable[..., None]

collect_ignore_glob = ["test_*.py"] if unmet(("torch>=2.8",)) else []
"""Searches are tested with torch 2.8 and later."""


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache folder of the test."""
    folder = tmp_path_factory.mktemp("cache")
    use_cache(folder, monkeypatch)
    return folder / "tuning"


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Install plugins, and limit searches to the given plugins, which may be built-in ones."""
    measure_briefly(monkeypatch)
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(site)

    def only(*names: str) -> None:
        for name in set(names) & SOURCES.keys():
            if (site / f"t_{name}.py").exists():
                continue
            (site / f"t_{name}.py").write_text(textwrap.dedent(SOURCES[name]), encoding="utf-8")
            info = site / f"dist_of_{name}-1.0.dist-info"
            info.mkdir()
            (info / "METADATA").write_text(
                f"Metadata-Version: 2.1\nName: dist-of-{name}\nVersion: 1.0\n", encoding="utf-8"
            )
            (info / "entry_points.txt").write_text(
                f"[{ENTRY_POINT_GROUP}]\n{name} = t_{name}\n", encoding="utf-8"
            )
        plugin_host.cache_clear()
        offered = importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)
        chosen = PluginHost(entry for entry in offered if entry.name in names)
        monkeypatch.setattr("cpuaccel.tuning.auto.plugin_host", lambda: chosen)

    yield only
    plugin_host.cache_clear()
    for name in SOURCES:
        sys.modules.pop(f"t_{name}", None)


@pytest.fixture
def encoder() -> torch.nn.Module:
    return MaskedEncoder.seeded()
