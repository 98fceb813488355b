"""The code of the tutorial."""

import re
from pathlib import Path

from tests.conftest import Python

TUTORIAL = Path(__file__).parents[2] / "docs" / "writing_a_plugin.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TUTORIAL.read_text(encoding="utf-8"), re.DOTALL)


def test_the_plugin_in_ten_lines_works(tmp_path: Path, python: Python) -> None:
    plugin, *_ = blocks("python")
    entry_points, *_ = blocks("toml")
    assert len([line for line in plugin.splitlines() if line.strip()]) == 10
    (tmp_path / "halve_plugin.py").write_text(plugin + "\nhalved = lambda model: model\n")
    info = tmp_path / "halve-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: halve\nVersion: 1.0\n")
    declared = entry_points.replace("[project.entry-points.cpuaccel]", "[cpuaccel]")
    (info / "entry_points.txt").write_text(declared.replace('"', ""))
    code = """
import torch, cpuaccel
fast = cpuaccel.optimize(
    torch.nn.Linear(2, 2), ["halve", "jit"], example_inputs=torch.ones(2, 2), strict=True
)
print(cpuaccel.plugin_host().origins["halve"], fast.report.applied)
"""
    assert python(code, path=(tmp_path,)).stdout == "halve (halve 1.0) ('halve', 'jit')\n"


def test_its_options_exist() -> None:
    from cpuaccel.testing import BackendContract

    for name in ("options", "varies", "dtypes", "needs", "after", "model", "example_inputs"):
        assert f"{name}" in blocks("python")[2]
        assert hasattr(BackendContract, name)
