import pytest

from tests.cli.conftest import Run
from tests.interruption import interrupt_bench_at
from tests.required import NATIVE, ROOT, requires

TINY = ("bench", "config:llama-tiny", "--generate", "4", "--threads", "1")
ONCE = (*TINY, "--rounds", "1")


@requires(*NATIVE)
def test_measures_every_pipeline_and_eager_for_every_batch_of_prompts(run: Run) -> None:
    ran = run(
        *(*TINY, "--backends", "onednn", "--backends", "int8", "--batch-size", "1,3"),
        *("--prompt-len", "6,9", "--padding", "0.3", "--rounds", "3", "--json"),
    )
    assert ran.code == 0, ran.err
    assert ran.data["tokens"] == 4
    rows = ran.data["results"]
    assert [(row["batch_size"], row["prompt_len"], row["pipeline"]) for row in rows] == [
        (batch, length, name)
        for batch in (1, 3)
        for length in (6, 9)
        for name in ("eager", "onednn", "int8")
    ]
    for row in rows:
        assert row["rounds"] == 3
        assert row["first_token_ms"] > 0
        assert row["tokens_per_second"] > 0
    for row in rows[1::3]:
        assert row["status"] == "applied", row["notes"]
        assert row["ratio"]["pairs"] == row["first_token_ratio"]["pairs"] == 3
        assert row["error"] <= 1e-4
    layer = 2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 64
    linears, cache = 4 * (2 * layer + 32 * 512), 4 * 2 * 2 * 16
    # The first of the three steps after a prompt of 6 tokens reads 7 of them.
    assert rows[1]["megabytes_per_token"] * 1e6 == pytest.approx(linears + 8 * cache)
    assert rows[7]["megabytes_per_token"] * 1e6 == pytest.approx(linears / 3 + 8 * cache)
    assert rows[2]["megabytes_per_token"] < rows[1]["megabytes_per_token"]
    assert "timing 3 x 9" in ran.err


@requires(*NATIVE)
def test_the_table(run: Run) -> None:
    ran = run(*ONCE, "--backends", "onednn", "--backends", "jit")
    assert ran.code == 0, ran.err
    shown = ran.out.splitlines()
    eager = next(line for line in shown if line.startswith("float32")).split()
    assert eager[:5] == ["float32", "1", "x", "128", "eager"]
    assert next(line for line in shown if "onednn" in line).split()[-1] == "applied"
    assert next(line for line in shown if " jit " in line).split()[-2:] == ["NOT", "APPLIED"]
    assert "jit (float32): generate is not accelerated" in ran.out


def test_without_a_stepper_nothing_is_applied(run: Run) -> None:
    ran = run(*ONCE, "--backends", "jit", "--json")
    assert ran.code == 0, ran.err
    eager, jit = ran.data["results"]
    assert eager["status"] == "eager"
    assert jit["status"] == "not applied"
    assert jit["error"] is None


def test_one_token_has_no_rate(run: Run) -> None:
    ran = run("bench", "config:llama-tiny", "--generate", "1", "--rounds", "1", "--backends", "jit")
    assert ran.code == 0, ran.err
    eager = next(line for line in ran.out.splitlines() if line.startswith("float32")).split()
    jit = next(line for line in ran.out.splitlines() if " jit " in line).split()
    assert eager[-8:] == ["1", "-", "-", "-", "-", "-", "-", "eager"]
    assert jit[-8:-4] == ["-", "-", "-", "-"]


SPEECH = ("--task", "automatic-speech-recognition")


@requires(*NATIVE)
@pytest.mark.parametrize("beams", [1, 3])
def test_speech(run: Run, beams: int) -> None:
    ran = run(
        *("bench", "config:whisper-tiny", *SPEECH, "--generate", "5", "--num-beams", str(beams)),
        *("--backends", "onednn", "--batch-size", "2", "--rounds", "2", "--threads", "1", "--json"),
    )
    assert ran.code == 0, ran.err
    assert (ran.data["tokens"], ran.data["num_beams"]) == (5, beams)
    eager, fast = ran.data["results"]
    assert fast["status"] == "applied", fast["notes"]
    for row in (eager, fast):
        assert row["prompt_len"] is None
        # Two rows of 64 frames of 10 ms.
        assert row["real_time_factor"] == pytest.approx(row["call_ms"] / 1000 / 2 / 0.64)
        assert (row["first_token_ms"] is None) == (beams > 1)
        if beams > 1:
            rate = 2 * 5 / row["call_ms"] * 1000
            assert row["tokens_per_second"] == pytest.approx(rate)
        else:
            assert 0 < row["first_token_ms"] < row["call_ms"]
    assert fast["call_ratio"]["pairs"] == fast["ratio"]["pairs"] == 2
    assert fast["error"] <= 1e-4


def test_a_task_that_needs_generate_has_a_number_of_tokens(run: Run) -> None:
    ran = run(
        *("bench", "config:marian-tiny", "--prompt-len", "6", "--rounds", "1"),
        *("--backends", "jit", "--json"),
    )
    assert ran.code == 0, ran.err
    assert ran.data["tokens"] == 64
    eager, jit = ran.data["results"]
    assert eager["prompt_len"] == 6
    assert eager["real_time_factor"] is None
    assert jit["status"] == "not applied"


@requires(*NATIVE)
def test_the_table_of_speech(run: Run) -> None:
    command = ("bench", "config:whisper-tiny", "--generate", "3", "--rounds", "1")
    ran = run(*command, "--backends", "onednn")
    assert ran.code == 0, ran.err
    assert "seconds of a whole call for a second of speech" in ran.out
    ran = run(*command, "--num-beams", "2", "--backends", "onednn")
    assert ran.code == 0, ran.err
    assert "2 beams; tokens/s: of the whole call" in ran.out


@requires("path: ../shared/asr")
def test_a_saved_whisper(run: Run) -> None:
    """The task of its folder is found in its config."""
    folder = str(ROOT.parent / "shared" / "asr" / "model")
    command = ("bench", folder, "--generate", "2", "--rounds", "1", "--backends", "jit", "--json")
    ran = run(*command)
    assert ran.code == 0, ran.err
    assert ran.data["results"][0]["real_time_factor"] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("config:bert-tiny", "--num-beams", "2"), "needs --generate, got 2"),
        (("config:whisper-tiny", "--generate", "2", "--prompt-len", "4"), "of one length"),
        (("config:whisper-tiny", "--generate", "2", "--padding", "0.5"), "of one length"),
        (("config:marian-tiny", "--seq-len", "4"), "Pass --prompt-len"),
        (("config:bert-tiny", "--prompt-len", "8"), "needs --generate, got 8"),
        (("config:llama-tiny", "--generate", "4", "--seq-len", "8"), "Pass --prompt-len"),
        (("config:llama-tiny", "--generate", "4", "--task", "fill-mask"), "Leave it out"),
        (("config:llama-tiny", "--generate", "0"), "'--generate'"),
        (("config:llama-tiny", "--generate", "4", "--prompt-len", "x"), "numbers >= 1"),
        (("demo", "--generate", "4"), "is not a language model, got demo"),
    ],
)
def test_usage_errors(run: Run, arguments: tuple[str, ...], message: str) -> None:
    ran = run("bench", *arguments, "--backends", "jit")
    assert ran.code == 2
    assert message in " ".join(ran.err.replace("│", "").split())
    assert ran.out == ""


def test_models_that_do_not_generate(run: Run) -> None:
    ran = run("bench", "config:vit-tiny", "--generate", "4", "--backends", "jit")
    assert ran.code == 1
    assert "has no text-generation for config:vit-tiny" in " ".join(ran.err.split())


def test_prompts_that_the_model_does_not_accept(run: Run) -> None:
    ran = run(
        *("bench", "config:bert-tiny", "--generate", "4", "--prompt-len", "600"),
        *("--backends", "jit"),
    )
    assert ran.code == 1
    assert "Choose a shorter --prompt-len" in " ".join(ran.err.split())


def test_an_interrupted_benchmark_prints_the_finished_results(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt_bench_at("timing 2 x 8", monkeypatch)
    ran = run(
        *(*ONCE, "--backends", "jit", "--batch-size", "1,2,3", "--prompt-len", "8", "--json"),
    )
    assert ran.code == 130
    assert ran.data["interrupted"]
    assert {row["batch_size"] for row in ran.data["results"]} == {1}
