"""The Python blocks of the docs run, in the order of their page, as a reader would run them.

A page's blocks share their names. What a page takes for granted (``model``, ``batch``) is in
``given.py``; hub ids are folders with tiny models.
"""

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import cpuaccel
from cpuaccel.plugin.manager import plugin_host
from tests.brief_searches import measure_briefly
from tests.caches import use_cache
from tests.conftest import Offer
from tests.docs.checkpoints import CHECKPOINTS
from tests.docs.given import names_for
from tests.docs.pages import PAGES, code_blocks
from tests.required import OPENVINO_DECODING, ROOT, SPARK, requires, unmet

pytestmark = requires("torch==2.13.*", "transformers==5.*", *OPENVINO_DECODING)


def blocks(page: Path) -> list[tuple[int, str]]:
    """The Python blocks of a page, each with its line."""
    return [(b.line, b.code) for b in code_blocks(page) if b.language == "python"]


WITH_CODE = [page for page in PAGES if blocks(page)]


WITH_RAY = ROOT / "docs" / "scale.md"
"""Ray's and Spark's own modules raise deprecation warnings."""

SEARCHING = {"docs/tuning.md", "docs/how_to/classification.md"}
FEW = "bettertransformer,inductor,int8,ipex,jit,onnxruntime,openvino,zentorch"
"""Plugins that these pages do without: a search with all takes a minute, even for a tiny model."""


@pytest.fixture
def searching(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Search with ``onednn`` only, in this process and in its workers."""
    monkeypatch.setenv("CPUACCEL_DISABLE_PLUGINS", FEW)
    plugin_host.cache_clear()
    yield
    plugin_host.cache_clear()


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the models that the docs name, as folders."""
    folder = tmp_path_factory.mktemp("hub")
    for name, save in CHECKPOINTS.items():
        (folder / name).mkdir(parents=True)
        torch.manual_seed(0)
        save(folder / name)
    return folder


def _marked(page: Path) -> Any:
    marks = [pytest.mark.filterwarnings("default")] if page == WITH_RAY else []
    return pytest.param(page, marks=marks, id=str(page.relative_to(ROOT)))


@pytest.mark.parametrize("page", [_marked(page) for page in WITH_CODE])
def test_every_block_runs(
    page: Path, hub: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.chdir(hub)
    use_cache(hub / "cache", monkeypatch)
    measure_briefly(monkeypatch)
    name = str(page.relative_to(ROOT))
    if name in SEARCHING:
        request.getfixturevalue("searching")
    if page == WITH_RAY:  # a folder without the address of another cluster
        monkeypatch.setenv("RAY_TMPDIR", tempfile.mkdtemp(prefix="ray"))
    names = names_for(name)
    names["__name__"] = page.stem
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    for line, code in blocks(page):
        if "pyspark" in code and unmet(SPARK):  # such as on a host without Java
            continue
        exec(compile("\n" * line + code, str(page), "exec"), names)


def test_the_notebook_runs() -> None:
    notebook = json.loads((ROOT / "examples" / "quickstart.ipynb").read_text(encoding="utf-8"))
    cells = ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code"]
    names: dict[str, object] = {}
    for cell in cells:
        exec(compile(cell, "quickstart.ipynb", "exec"), names)
    assert len(cells) > 6


def test_the_plugin_of_the_docs_works(offer: Offer) -> None:
    names: dict[str, Any] = {}
    exec(blocks(ROOT / "docs" / "writing_a_plugin.md")[0][1], names)
    offer(*names["cpuaccel_backends"]())
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Dropout()).eval()
    fast = cpuaccel.optimize(model, ["undrop"], example_inputs=torch.ones(2, 4))
    assert fast.report.outcomes[0].status == "applied"
    assert fast.report.outcomes[0].evidence == {"removed": 1}


def test_a_block_that_fails_fails_the_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# Page\n\n```python\nx = 1\n```\n\n1. Item\n   ```python\n   assert x == 2\n   ```\n"
    )
    found = blocks(page)
    assert [line for line, _ in found] == [3, 8]
    assert found[1][1] == "assert x == 2\n"


def test_pages_with_code_are_found() -> None:
    assert {"README.md", "tutorial.md", "embeddings.md"} <= {page.name for page in WITH_CODE}
