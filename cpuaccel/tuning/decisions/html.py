"""The HTML page of a search: one file without external resources."""

import importlib.util
import statistics
from collections.abc import Sequence
from pathlib import Path

import cpuaccel
from cpuaccel.artifact.atomic_write import check_writable, write_file
from cpuaccel.errors import CpuaccelError
from cpuaccel.plugin.host import Host
from cpuaccel.timing import format_ms, format_number, format_ratio, percentile
from cpuaccel.tuning.candidate import ORIGINAL
from cpuaccel.tuning.decisions.result import CandidateStatus, Row, Tuning
from cpuaccel.tuning.decisions.scatter import scatter

SHOWN_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "asimd", "bf16", "sve")
MOST_DOTS = 80
"""Maximum number of rounds that are drawn for one candidate."""


def check_page(path: Path) -> None:
    """Check before a search that the page can be written after it."""
    if importlib.util.find_spec("jinja2") is None:
        raise CpuaccelError(
            f'{path} can\'t be written: Jinja2 is not installed. Run: pip install ".[report]"'
        )
    check_writable(path)


def write_page(
    path: Path, model: str, tuning: Tuning, host: Host, lock: Path | None = None, save: str = ""
) -> None:
    """Write the page in one step.

    Args:
        path: of the page.
        model: its title.
        tuning: the result of the search.
        host: where it ran.
        lock: the lock file, if the decision was written to one.
        save: the command that saves the winner from a lock file, if there is one.
    """
    try:
        write_file(path, render_page(model, tuning, host, lock, save))
    except OSError as error:
        raise CpuaccelError(
            f"{path} can't be written: {error.strerror}. Choose another path"
        ) from error


def render_page(
    model: str, tuning: Tuning, host: Host, lock: Path | None = None, save: str = ""
) -> str:
    """Return the text of the page; the arguments are those of ``write_page``."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("cpuaccel.tuning.decisions", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["ms"] = format_ms
    environment.filters["number"] = format_number
    environment.filters["ratio"] = format_ratio
    environment.filters["metric"] = format_metric
    environment.filters["mib"] = lambda size: f"{size / 2**20:,.0f}"
    environment.filters["error"] = format_error
    measured = [row for row in tuning.rows if row.rounds]
    ranked = sorted(measured, key=lambda row: row.status is not CandidateStatus.CHOSEN)
    outputs = dict.fromkeys(name for row in tuning.rows for name in row.errors())
    return environment.get_template("page.html.j2").render(
        model=model,
        tuning=tuning,
        host=host,
        lock=lock,
        save=save,
        baseline=tuning.winner.baseline(tuning.own_precision),
        kept=tuning.winner == ORIGINAL,
        precisions={row.candidate.precision for row in tuning.rows},
        flags=[flag for flag in SHOWN_FLAGS if flag in host.isa],
        packages={
            name: host.packages[name]
            for name in ("torch", "transformers", "openvino", "onnxruntime", "zentorch", "numpy")
            if name in host.packages
        },
        version=cpuaccel.__version__,
        chosen=next((row for row in ranked if row.candidate == tuning.winner), None),
        ranking=ranked,
        top=max([1.0, *(row.speedup.high for row in ranked if row.speedup)]),
        latencies=_latencies(ranked),
        scatter=scatter(ranked),
        spent=sorted(tuning.rows, key=lambda row: -row.tried_seconds),
        outputs=list(outputs),
        compared=[row for row in tuning.rows if row.differences],
        failed=[row for row in tuning.rows if not row.rounds or row.reason],
    )


def format_error(error: float | None) -> str:
    """Return a relative error in percent, or as a power of ten if it is small."""
    if not error:
        return "0"
    return f"{error:.1%}" if error >= 1e-3 else f"{error:.1e}"


def format_metric(metric: float) -> str:
    """Return a metric with four digits or, from 1,000 on, without decimals."""
    return f"{metric:,.0f}" if abs(metric) >= 1000 else f"{metric:.4g}"


def _latencies(rows: Sequence[Row]) -> dict[str, object]:
    """Return the position of each round between 0 and the slowest, in percent of the width."""
    series = [
        (row, who, seconds)
        for row in rows
        for who, seconds in (
            ("eager, in turn", row.eager_seconds),
            (row.candidate.name, row.seconds),
        )
    ]
    # Not the maximum: one stall would compress the rest.
    widest = max((percentile(seconds, 95) for _, _, seconds in series), default=0.0) * 1.05
    drawn = []
    for row, who, seconds in series:
        low, high = percentile(seconds, 5), percentile(seconds, 95)
        drawn.append(
            {
                "row": row,
                "who": who,
                "median_ms": statistics.median(seconds) * 1000,
                "p95_ms": high * 1000,
                "left": 100 * low / widest,
                "width": 100 * (min(high, widest) - low) / widest,
                "middle": 100 * statistics.median(seconds) / widest,
                "dots": [100 * s / widest for s in seconds[:MOST_DOTS] if s <= widest],
            }
        )
    return {"widest_ms": widest * 1000, "series": drawn}
