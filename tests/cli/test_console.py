import pytest
from rich.console import Console

from cpuaccel.cli import console
from cpuaccel.cli.bench import table as bench_table
from cpuaccel.cli.console import PIPE_WIDTH, fitted, new_table, stdout
from tests.cli.conftest import Run

NAME = "bettertransformer,onednn"


def table_in(width: int) -> str:
    made = new_table("pipeline", ">median ms", ">p95 ms", ">rounds")
    made.add_row(NAME, "1,411.00", "1,500.00", "12")
    wide = Console(width=width)
    with wide.capture() as captured:
        wide.print(fitted(made, wide, ("p95 ms", "rounds")))
    return captured.get()


def test_a_wide_console_has_all_columns() -> None:
    assert all(title in table_in(80) for title in ("median ms", "p95 ms", "rounds"))


def test_a_narrow_console_drops_columns_in_order_and_keeps_names_whole() -> None:
    narrow = table_in(50)
    assert "p95 ms" not in narrow
    assert "rounds" in narrow
    assert NAME in narrow
    assert "rounds" not in table_in(40)
    assert NAME in table_in(40)


def test_if_nothing_is_left_to_drop_numbers_wrap() -> None:
    narrow = table_in(30)
    assert NAME in narrow


def test_columns_does_not_decide_about_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    assert stdout().width == PIPE_WIDTH


def test_bench_at_80_columns_keeps_the_names(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_table, "stdout", lambda: Console(width=80))
    ran = run(
        *("bench", "config:bert-tiny", "--backends", NAME, "--seq-len", "8"),
        *("--batch-size", "2", "--rounds", "1", "--threads", "1"),
    )
    (line,) = [line for line in ran.out.splitlines() if NAME in line and "applied" in line.lower()]
    assert len(line) <= 80
    assert "\npeak: " not in ran.out, "it explains a column that is left out"
    assert console.PIPE_WIDTH > 80
