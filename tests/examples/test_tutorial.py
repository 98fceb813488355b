"""The code of the tutorial."""

import re
import tomllib
from pathlib import Path

from tests.conftest import Python

TUTORIAL = Path(__file__).parents[2] / "docs" / "writing_a_plugin.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TUTORIAL.read_text(encoding="utf-8"), re.DOTALL)


def test_the_plugin_in_twenty_lines_works(tmp_path: Path, python: Python) -> None:
    plugin, *_ = blocks("python")
    pyproject, *_ = blocks("toml")
    assert len([line for line in plugin.splitlines() if line.strip()]) <= 20
    (tmp_path / "undrop_plugin.py").write_text(plugin)
    info = tmp_path / "undrop_plugin-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: undrop-plugin\nVersion: 0.1.0\n")
    groups = tomllib.loads(pyproject)["project"]["entry-points"]
    lines = [f"{name} = {module}" for name, module in groups["cpuaccel"].items()]
    (info / "entry_points.txt").write_text("\n".join(["[cpuaccel]", *lines]))
    code = """
import torch, cpuaccel
model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout())
fast = cpuaccel.optimize(
    model, ["undrop", "jit"], example_inputs=torch.ones(2, 2), strict=True
)
print(cpuaccel.plugin_host().origins["undrop"], fast.report.applied)
"""
    expected = "undrop (undrop-plugin 0.1.0) ('undrop', 'jit')\n"
    assert python(code, path=(tmp_path,)).stdout == expected


def test_its_options_exist() -> None:
    from cpuaccel.testing import BackendContract

    for name in ("options", "varies", "dtypes", "needs", "after", "model", "example_inputs"):
        assert f"{name}" in blocks("python")[2]
        assert hasattr(BackendContract, name)
