import html.parser
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import cpuaccel
from cpuaccel.report import Difference
from cpuaccel.testing import fake_host
from cpuaccel.timing import Speedup
from cpuaccel.tuning.candidate import Candidate, NotTried
from cpuaccel.tuning.decisions.html import check_page, format_error, render_page, write_page
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
    peak_bytes=700 * 2**20,
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
    instances=(Instances(1, 2, 100.0), Instances(2, 1, 140.0)),
    seconds=61.0,
    rebuilt=("2.9x as fast as eager in this process",),
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
        "1.3 %",  # the error per output
        "pays off after 1,000 calls",
        "700 MiB",
        "dead in float32 crashed after 3 s: its process was ended by SIGSEGV",
        "ipex: it is not installed. Install it",
        fake_host().processor,
        "8 x 384, 50% padding",
        "2.9x as fast as eager in this process",
        "cpuaccel.ProcessPool(folder, processes=2, threads=1)",
    ):
        assert part in text, part
    assert read.tags.count("h2") == 10
    assert page.count('class="dot"') == 2 * len(ROUNDS)


def test_page_of_eager_in_another_precision() -> None:
    """The title names what eager is compared with."""
    row = replace(FAST, candidate=Candidate((), "bfloat16"))
    page = render_page("m", replace(TUNING, winner=row.candidate, rows=(row,)), fake_host())
    title = page.partition("<h1>")[2].partition("</h1>")[0]
    assert "as fast as the model as it is" in title
    assert "as fast as eager" not in title


def test_page_shows_how_to_use_the_result() -> None:
    text = Reader(render_page("m", TUNING, fake_host())).text
    assert "cpuaccel.optimize(model, ['engine'], dtype=\"bfloat16\", example_inputs=batch)" in text
    assert 'lock="cpuaccel.lock"' in text


def test_many_that_were_not_tried_are_folded() -> None:
    few = render_page("m", TUNING, fake_host())
    missing = tuple(NotTried(f"b{n}", "no time") for n in range(18))
    many = render_page("m", replace(TUNING, not_tried=missing), fake_host())
    assert "<details open>" in few
    assert "<details open>" not in many
    assert "18 candidates" in Reader(many).text


@pytest.mark.parametrize(
    ("error", "text"), [(0.0, "0"), (None, "0"), (1.24e-6, "1.2e-06"), (0.0137, "1.4 %")]
)
def test_errors_are_written_as_people_write_them(error: float | None, text: str) -> None:
    assert format_error(error) == text


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
    kept = Tuning(target="latency", winner=Candidate((), "its own precision"), why="eager is kept")
    assert "eager is kept" in Reader(render_page("my model", kept, fake_host())).text


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


def test_a_search_that_measured_nothing_for_want_of_time_is_not_final() -> None:
    late = Row(candidate=DEAD.candidate, status=CandidateStatus.TIMED_OUT)
    left = NotTried("jit in float32", "the budget ended", for_time=True)
    nothing = replace(TUNING, rows=(late,), not_tried=())
    assert not nothing.final
    assert not replace(nothing, rows=(), not_tried=(left,)).final
    assert replace(nothing, rows=(late, FAST)).final  # a longer budget might find a faster one
    assert replace(nothing, rows=(DEAD,)).final
    assert replace(nothing, rows=()).final


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
