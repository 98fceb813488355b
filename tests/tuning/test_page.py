import html.parser
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import cpuaccel
from cpuaccel.report import Difference
from cpuaccel.testing import fake_host
from cpuaccel.timing import Speedup
from cpuaccel.tuning.candidate import ORIGINAL, Candidate, NotTried
from cpuaccel.tuning.decisions.html import (
    check_page,
    format_error,
    format_metric,
    render_page,
    write_page,
)
from cpuaccel.tuning.decisions.result import CandidateStatus, Instances, Row, Rule, Tuning
from cpuaccel.tuning.decisions.scatter import scatter
from cpuaccel.tuning.workers.timing import ratios
from cpuaccel.tuning.workload import Shape

ROUNDS = tuple(((0.010 + n / 10000, 0.004),) for n in range(30))
FAST = Row(
    candidate=Candidate(("engine",), "bfloat16"),
    status=CandidateStatus.CHOSEN,
    speedup=Speedup.from_ratios(ratios(ROUNDS, [1.0])),
    rounds=ROUNDS,
    weights=(1.0,),
    differences=(
        Difference("batch 1", "logits", 0.02, 0.013),
        Difference("batch 1", "states.0", 0.0, 0.0),
    ),
    build_seconds=7.45,
    peak_bytes=1700 * 2**20,
    runoff=Speedup(1.0, 1.0, 1.0, 9),
)
DEAD = Row(
    candidate=Candidate(("dead",), "float32"),
    status=CandidateStatus.CRASHED,
    reason="its process was ended by SIGSEGV while it was built and proven: <script>alert(1)",
    tried_seconds=3.0,
)
TUNING = Tuning(
    target="throughput",
    winner=FAST.candidate,
    why="2.86x as fast as eager",
    rows=(FAST, DEAD),
    not_tried=(NotTried("ipex", "it is not installed. Install it"),),
    shapes=(Shape(8, 384, 0.5),),
    weights=(1.0,),
    instances=(Instances(1, 2, 100.0), Instances(2, 1, 12345.0)),
    seconds=61.0,
    rebuilt=("2.9x as fast as the original in this process",),
)


class Reader(html.parser.HTMLParser):
    """The text of a page, and its external resources."""

    VOID = frozenset({"meta", "link", "img", "br"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(page)
        assert self.open == [], "an element is not closed"

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.fetched += [str(value) for name, value in attributes if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_page_has_all_results() -> None:
    page = render_page("my model", TUNING, fake_host())
    read = Reader(page)
    text = " ".join(read.text.split())
    gain = FAST.speedup
    assert gain is not None
    for part in (
        f"engine is {gain.median:.2f} times as fast as eager",
        "1.3%",  # the error per output
        "pays off after 1,000 calls",
        "1,700 MiB",
        "12,345",  # rows per second
        "engine in bfloat16: 2.86x as fast as eager",
        "dead in float32 crashed after 3 s: its process was ended by SIGSEGV",
        "ipex: it is not installed. Install it",
        fake_host().processor,
        "8 x 384, 50% padding",
        "2.9x as fast as the original in this process",
        "cpuaccel.ProcessPool(folder, processes=2, threads=1)",
        "less than half as fast as the best so far",
    ):
        assert part in text, part
    assert read.tags.count("h2") == 10
    assert page.count('class="dot"') == 2 * len(ROUNDS)


def test_page_of_a_cast() -> None:
    row = replace(FAST, candidate=Candidate((), "bfloat16"))
    cast = replace(
        TUNING,
        winner=row.candidate,
        why="1.43x as fast as in float32",
        own_precision="float32",
        rows=(row,),
        rebuilt=(),
    )
    page = render_page("m", cast, fake_host())
    header = " ".join(Reader(page).text.partition("tuned for")[2].partition("Ranking")[0].split())
    assert "The original cast to bfloat16 is 2.86 times as fast as in float32" in header
    assert "the original cast to bfloat16 is 1.43x as fast as in float32." in header
    assert "as fast as in float32; 95% confidence interval" in header
    assert "eager" not in header
    assert 'cpuaccel.optimize(model, [], dtype="bfloat16"' in Reader(page).text


SAVE = "cpuaccel optimize m --lock my.lock --output fast/"


def test_page_shows_how_to_use_the_result() -> None:
    tuning = replace(TUNING, arguments="precisions=['bfloat16'], target='throughput'")
    text = Reader(render_page("m", tuning, fake_host(), Path("my.lock"), SAVE)).text
    assert "cpuaccel.optimize(model, ['engine'], dtype=\"bfloat16\", example_inputs=batch)" in text
    assert (
        "cpuaccel.optimize(model, \"auto\", example_inputs=batch, precisions=['bfloat16'], "
        "target='throughput', lock=\"my.lock\")"
    ) in text
    assert SAVE in text
    without = Reader(render_page("m", TUNING, fake_host())).text
    assert 'example_inputs=batch, lock="cpuaccel.lock")' in without
    assert "Save the optimized model" not in without


def test_page_shows_how_to_use_two_pipelines() -> None:
    other = Candidate(("other",), "float32")
    rule = Rule("length", 64, FAST.candidate, other, 1.2)
    shapes = (Shape(8, 32, 0.0), Shape(8, 384, 0.0))
    tuning = replace(TUNING, rule=rule, shapes=shapes, weights=(0.5, 0.5))
    text = Reader(render_page("m", tuning, fake_host(), None, SAVE)).text
    assert 'cpuaccel.optimize(model, "auto", example_inputs=batches, lock=' in text
    assert "['engine']" not in text
    assert SAVE not in text  # only one pipeline can be saved


def test_many_that_were_not_tried_are_folded() -> None:
    few = render_page("m", TUNING, fake_host())
    missing = tuple(NotTried(f"b{n}", "no time") for n in range(18))
    many = render_page("m", replace(TUNING, not_tried=missing), fake_host())
    assert "<details open>" in few
    assert "<details open>" not in many
    assert "18 candidates" in Reader(many).text


@pytest.mark.parametrize(
    ("error", "text"), [(0.0, "0"), (None, "0"), (1.24e-6, "1.2e-06"), (0.0137, "1.4%")]
)
def test_errors_are_written_as_people_write_them(error: float | None, text: str) -> None:
    assert format_error(error) == text


@pytest.mark.parametrize(("metric", "text"), [(0.91237, "0.9124"), (-12345.6, "-12,346")])
def test_metrics_are_written_as_people_write_them(metric: float, text: str) -> None:
    assert format_metric(metric) == text


def test_points_are_placed_by_speed_and_error() -> None:
    def at(speed: float, error: float) -> Row:
        found = Difference("batch 1", "logits", error, error)
        return replace(FAST, speedup=Speedup(speed, speed, speed, 9), differences=(found,))

    drawn = scatter([at(2.0, 1e-6), at(4.0, 1e-2), at(1.0, 0.0)])
    points: Any = drawn["points"]
    (slow, exact), (fast, rough), (eager, zero) = [(p["y"], p["x"]) for p in points]
    assert fast < slow < eager  # pixels from the top
    assert zero < exact < rough
    assert scatter([DEAD]) == {"points": []}


def test_page_has_no_external_resources_and_no_scripts() -> None:
    read = Reader(render_page("my <b>model</b>", TUNING, fake_host()))
    assert read.fetched == []
    assert "script" not in read.tags
    assert "my <b>model</b>, tuned for throughput" in read.text


def test_page_of_a_decision_from_a_lock_file() -> None:
    rule = Rule("length", 64, Candidate(("a",), "float32"), Candidate(("b",), "float32"), 1.2)
    taken = Tuning(
        target="latency", winner=rule.low, why="2x as fast as eager", rule=rule, source="my.lock"
    )
    text = " ".join(Reader(render_page("my model", taken, fake_host())).text.split())
    assert "Read from my.lock, without a search" in text
    assert "Up to length 64: a in float32; above: b in float32" in text


def test_page_if_eager_is_kept() -> None:
    kept = Tuning(target="latency", winner=ORIGINAL, why="nothing is faster")
    text = Reader(render_page("my model", kept, fake_host())).text
    assert "eager is kept" in text
    assert "--precisions float32,bfloat16" in text
    assert "--tolerance" in text
    assert "--budget" not in text
    assert "Use it" not in text
    left = NotTried("jit in bfloat16", "no time", for_time=True)
    row = replace(DEAD, candidate=Candidate(("dead",), "bfloat16"))
    late = replace(kept, rows=(row,), not_tried=(left,))
    text = Reader(render_page("my model", late, fake_host())).text
    assert "--precisions" not in text
    assert "--budget" in text


def test_a_search_counts_its_candidates_by_result() -> None:
    assert str(TUNING).splitlines()[-1] == (
        "search    2 candidates in 61 s: 1 measured, 1 crashed; 1 not tried"
    )
    late = Row(candidate=DEAD.candidate, status=CandidateStatus.TIMED_OUT)
    tuning = replace(TUNING, rows=(FAST, DEAD, late, late))
    assert str(tuning).splitlines()[-1] == (
        "search    4 candidates in 61 s: 1 measured, 1 crashed, 2 timed out; 1 not tried; "
        "a longer budget may finish 2 that timed out"
    )


def test_a_search_says_what_a_longer_budget_may_bring() -> None:
    left = NotTried("jit in float32", "the budget ended", for_time=True)
    tuning = replace(TUNING, not_tried=(*TUNING.not_tried, left, left))
    assert TUNING.more_time == ""
    assert tuning.more_time == "a longer budget may try 2 more"
    assert "A longer budget may try 2 more" in Reader(render_page("m", tuning, fake_host())).text


def test_a_search_that_measured_nothing_for_want_of_time_is_not_worth_keeping() -> None:
    unfinished = replace(TUNING, rows=(), unfinished_budget=60.0)
    assert not unfinished.worth_keeping
    assert not replace(unfinished, rows=(DEAD,)).worth_keeping
    assert replace(unfinished, rows=(DEAD, FAST)).worth_keeping
    assert replace(TUNING, rows=(DEAD,)).worth_keeping
    assert replace(TUNING, rows=()).worth_keeping


def test_a_decision_says_that_its_search_was_unfinished() -> None:
    taken = Tuning(
        target="latency",
        winner=FAST.candidate,
        why="2x as fast as eager",
        source="my.lock",
        unfinished_budget=60.0,
    )
    assert "search of 60 s left candidates untried, which a longer budget may try" in str(taken)
    text = " ".join(Reader(render_page("m", taken, fake_host())).text.split())
    assert "Its search of 60 s left candidates untried, which a longer budget may try." in text
    assert "longer budget" not in str(replace(taken, unfinished_budget=None))


def test_replaces_the_page(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text("an older one")
    check_page(path)
    write_page(path, "my model", TUNING, fake_host())
    assert path.read_text().startswith("<!doctype html>")
    assert list(tmp_path.iterdir()) == [path]


def test_rejects_a_path_that_is_not_writable(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing" / "page.html"):
        with pytest.raises(cpuaccel.CpuaccelError, match="Choose another path"):
            check_page(path)


def test_rejects_a_page_without_jinja(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(cpuaccel.CpuaccelError, match=r'pip install "\.\[report\]"'):
        check_page(tmp_path / "page.html")
