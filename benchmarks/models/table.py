"""The page docs/models.md, from the results of all cells."""

import platform
import re
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from cell import CASES, PIPELINES, TOLERANCE, Result

import cpuaccel

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
ENGINES = ("torch", "transformers", "openvino", "onnxruntime")
LONGEST_REASON = 240

Results = Mapping[tuple[str, str], Result]


def write_page(results: Results) -> None:
    """Write the page.

    Args:
        results: by the names of case and pipeline. Cells without one are shown as not run.
    """
    PAGE.write_text("\n".join([*_head(results), "", *_table(results), "", *_reasons(results), ""]))
    print(f"wrote {PAGE}")


def _head(results: Results) -> list[str]:
    packages = dict.fromkeys([*ENGINES, *(case.package for case in CASES.values())])
    versions = ", ".join(f"{package} {version(package)}" for package in packages)
    counts = {s: sum(r.status == s for r in results.values()) for s in _STATUSES}
    counts["not run"] = len(CASES) * len(PIPELINES) - len(results)
    commits = ", ".join(dict.fromkeys(r.commit for r in results.values() if r.commit))
    processors = " and ".join(dict.fromkeys(r.processor for r in results.values() if r.processor))
    return [
        "# Which models work with which backends",
        "",
        f"`benchmarks/models/run.py` wrote this page, with cpuaccel {cpuaccel.__version__}, Python "
        f"{platform.python_version()}, {versions}, on {processors}, with one thread.",
        "",
        "Cells are run one by one. They ran with these commits of cpuaccel: "
        f"{commits or 'unknown'} (`-dirty`: with changes that were not committed).",
        "",
        _HOW.format(tolerance=TOLERANCE),
        "",
        f"Cells: {', '.join(f'{count} {status}' for status, count in counts.items() if count)}.",
        "",
        "To make it again, or to run the cells that are missing:",
        "",
        "```bash",
        "venv=$(benchmarks/models/make-venv.sh | tail -n 1)",
        '"$venv/bin/python" benchmarks/models/run.py --write-docs',
        "```",
    ]


_HOW = """\
Every model has a typical architecture of small size and random weights; MiniLM-L6 is trained. It
is used as the users of its package use it. Each cell ran in a process of its own: one object of
the package stayed as it was; in another one, `cpuaccel.optimize(model, [...])` replaced the model.
Both got the same calls with several sizes, in two rounds with different values.

A cell shows how many calls of the model the optimized one served, and the largest difference from
the original, relative to the largest magnitude of the output. The original served all other calls;
*refused* means that it served all. **WRONG** means an answer that differs by more than
{tolerance:g}, or an error that the original does not raise. Numbers in brackets refer to the
reasons below the table."""

_STATUSES = ("applied", "partly", "refused", "WRONG", "CRASHED", "TIMED OUT")


def _table(results: Results) -> list[str]:
    notes = _notes(results)
    lines = [f"| package | model | {' | '.join(f'`{p}`' for p in PIPELINES)} |"]
    lines.append("|---" * (2 + len(PIPELINES)) + "|")
    package = ""
    for case in CASES.values():
        cells = [_cell(results.get((case.name, pipeline)), notes) for pipeline in PIPELINES]
        shown = "" if case.package == package else case.package
        package = case.package
        lines.append(f"| {shown} | {case.name} | {' | '.join(cells)} |")
    return lines


def _cell(result: Result | None, notes: Mapping[str, int]) -> str:
    if result is None:
        return "not run"
    numbers = sorted({notes[reason] for reason in map(_short, result.reasons)})
    note = f" [{', '.join(map(str, numbers))}]" if numbers else ""
    served = f"{result.served} of {result.calls}, {result.difference:.0e}"
    if result.status == "applied":
        return served + note
    if result.status == "partly":
        steps = result.pipeline.split("+")
        only = "" if result.applied == steps else f"{'+'.join(result.applied) or 'at times'}: "
        return only + served + note
    return (result.status if result.status == "refused" else f"**{result.status}**") + note


def _notes(results: Results) -> dict[str, int]:
    """Number the reasons in the order in which the table shows them."""
    keys = ((case, pipeline) for case in CASES for pipeline in PIPELINES)
    cells = [results[key] for key in keys if key in results]
    reasons = dict.fromkeys(_short(reason) for cell in cells for reason in cell.reasons)
    return {reason: number for number, reason in enumerate(reasons, 1)}


def _reasons(results: Results) -> list[str]:
    return ["## Reasons", "", *(f"{n}. {_escaped(r)}" for r, n in _notes(results).items())]


def _short(reason: str) -> str:
    reason = re.sub(r"/[^\s\"']*/(site-packages|tmp)/", "", " ".join(reason.split()))
    return reason if len(reason) <= LONGEST_REASON else reason[: LONGEST_REASON - 3] + "..."


def _escaped(reason: str) -> str:
    return reason.replace("<", "&lt;").replace("*", "\\*").replace("`", "'").replace("](", "] (")
