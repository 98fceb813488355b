import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from cpuaccel import Host, Stepper, Unload
from tests.cli.backends import Faithful
from tests.cli.conftest import Ran, Run
from tests.cli.generate.models import (
    ORIGINAL,
    PROMPT,
    SHORT,
    SPEED,
    TOKENS,
    expected,
)
from tests.conftest import Offer
from tests.required import NATIVE, requires

pytestmark = requires("transformers>=4.48")


def last_line(text: str) -> str:
    assert text.endswith("\n")
    return text.splitlines()[-1]


@requires(*NATIVE)
def test_text_on_stdout_and_one_line_on_stderr(run: Run, plain: Path) -> None:
    ran = run("generate", plain, PROMPT, *SHORT)
    assert ran.code == 0
    assert ran.out == expected(plain, PROMPT) + "\n"
    assert len(set(ran.out.split())) > TOKENS // 3
    line = f"{SPEED}, \\d+ MB a token, \\d+% of [\\d.]+ GB/s \\(onednn\\)\n"
    assert re.fullmatch(line, ran.err)
    assert ran.err.startswith(f"{TOKENS} tokens, ")


@requires(*NATIVE)
def test_a_single_token_has_no_rate(run: Run, plain: Path) -> None:
    ran = run("generate", plain, PROMPT, "--max-new-tokens", 1)
    assert ran.out == expected(plain, PROMPT, max_new_tokens=1) + "\n"
    assert re.fullmatch(r"1 token, first token after [\d.]+ s \(onednn\)\n", ran.err)


def test_the_chat_template_is_applied_by_default(run: Run, llama: Path) -> None:
    chatted = expected(llama, f"<user> {PROMPT} <bot>")
    arguments = ("generate", llama, PROMPT, *SHORT, *ORIGINAL)
    assert run(*arguments).out == chatted + "\n"
    assert run(*arguments, "--chat").out == chatted + "\n"
    other = run(*arguments, "--no-chat").out
    assert other == expected(llama, PROMPT) + "\n"
    assert other != chatted + "\n"


def test_a_prompt_from_standard_input(
    run: Run, plain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{PROMPT}\n"))
    data = run("generate", plain, "-", *SHORT, *ORIGINAL, "--json").data
    assert data["prompt"] == PROMPT
    assert data["text"] == expected(plain, PROMPT)


@requires(*NATIVE)
def test_json(run: Run, llama: Path) -> None:
    ran = run("generate", llama, PROMPT, *SHORT, "--json")
    data = ran.data
    assert data["model"] == str(llama)
    assert data["text"] == expected(llama, f"<user> {PROMPT} <bot>")
    assert (data["prompt"], data["chat"], data["tokens"]) == (PROMPT, True, TOKENS)
    assert (data["dtype"], data["pipeline"], data["seed"]) == ("float32", "onednn", None)
    assert data["tokens_per_second"] > 0
    assert data["first_token_seconds"] > 0
    assert not data["interrupted"]
    assert data["calls"] == {"optimized": 1}
    assert data["generation"]["steps"] == TOKENS - 1
    assert last_line(ran.err).endswith("(onednn)")


@requires(*NATIVE, "linux: 4.4")
@pytest.mark.parametrize(("options", "unloaded"), [((), True), (("--dtype", "bfloat16"), False)])
def test_weights_of_a_folder_are_not_held_twice(
    run: Run, plain: Path, options: tuple[str, ...], unloaded: bool
) -> None:
    """Those that were cast are not the checkpoint's, and stay."""
    data = run("generate", plain, PROMPT, *SHORT, "--backends", "int8", "--json", *options).data
    assert data["calls"] == {"optimized": 1}
    assert ("unloaded_weights" in data["generation"]["outcome"]["evidence"]) == unloaded


def test_the_weights_are_loaded_in_another_dtype(run: Run, plain: Path) -> None:
    arguments = ("generate", plain, PROMPT, "--max-new-tokens", 2, *ORIGINAL, "--json")
    assert run(*arguments, "--dtype", "bfloat16").data["dtype"] == "bfloat16"
    assert run(*arguments).data["dtype"] == "float32"


def test_the_number_of_threads(run: Run, plain: Path) -> None:
    arguments = ("generate", plain, PROMPT, "--max-new-tokens", 1, *ORIGINAL)
    assert run(*arguments, "--threads", 2).code == 0
    assert torch.get_num_threads() == 2


def test_sampling_repeats_with_a_seed(run: Run, plain: Path) -> None:
    def sampled(*options: object) -> Any:
        return run(
            "generate", plain, PROMPT, *SHORT, "--sample", "--json", *ORIGINAL, *options
        ).data

    first = sampled("--seed", 1)
    assert sampled("--seed", 1)["text"] == first["text"]
    assert sampled("--seed", 2)["text"] != first["text"]
    assert first["text"] != expected(plain, PROMPT)
    unseeded = sampled()
    assert sampled()["seed"] != unseeded["seed"]
    assert sampled("--seed", unseeded["seed"])["text"] == unseeded["text"]


def test_temperature_and_top_p_reach_the_sampling(run: Run, plain: Path) -> None:
    greedy = expected(plain, PROMPT) + "\n"
    for option in (("--temperature", 0.0001), ("--top-p", 0.0001)):
        ran = run("generate", plain, PROMPT, *SHORT, *ORIGINAL, "--sample", "--seed", 3, *option)
        assert ran.out == greedy


def assert_served_by_original(ran: Ran, folder: Path, reason: str) -> None:
    assert ran.code == 0
    assert ran.out == expected(folder, PROMPT) + "\n"
    line = f"{SPEED} \\(original: generate is not accelerated{reason}\\)"
    assert re.fullmatch(line, last_line(ran.err))


@requires(*NATIVE)
def test_an_encoder_decoder(run: Run, t5: Path) -> None:
    ran = run("generate", t5, PROMPT, *SHORT)
    assert ran.code == 0
    assert ran.out == expected(t5, PROMPT) + "\n"
    assert re.fullmatch(f"{SPEED}, .* \\(onednn\\)", last_line(ran.err))


def test_a_pipeline_that_does_not_generate(run: Run, plain: Path) -> None:
    ran = run("generate", plain, PROMPT, *SHORT, *ORIGINAL)
    assert_served_by_original(
        ran, plain, ". Pass --backends onednn or int8, and use transformers>=5"
    )


class Stumbling(Faithful):
    """Raises in the third step."""

    name = "stumbling"
    generates = True

    def stepper(self, model: torch.nn.Module, host: Host, unload: Unload | None = None) -> Stepper:
        def forward(**inputs: Any) -> object:
            if inputs["past_key_values"].get_seq_length() == FAILS_AT:
                raise RuntimeError("out of registers")
            return model(**inputs)

        return Stepper(forward, bytes_per_step=1)


FAILS_AT = 40
"""Tokens in the cache, more than in the proof of the stepper."""


@requires(*NATIVE)
def test_a_call_that_the_original_served(run: Run, offer: Offer, plain: Path) -> None:
    offer(Stumbling)
    ran = run("generate", plain, PROMPT, "--max-new-tokens", 50, "--backends", "stumbling")
    assert ran.code == 0
    assert ran.out == expected(plain, PROMPT, max_new_tokens=50) + "\n"
    line = last_line(ran.err)
    assert re.fullmatch(
        f"{SPEED} \\(stumbling; the original served 1 call: .*RuntimeError.*\\)", line
    )


@pytest.mark.parametrize("machine", [False, True])
def test_ctrl_c_keeps_the_text_so_far(
    run: Run, plain: Path, monkeypatch: pytest.MonkeyPatch, machine: bool
) -> None:
    from cpuaccel.cli.generate.stream import Stream

    put = Stream.put

    def interrupted(stream: Stream, value: torch.Tensor) -> None:
        put(stream, value)
        if len(stream.tokens) == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(Stream, "put", interrupted)
    ran = run("generate", plain, PROMPT, *ORIGINAL, *(["--json"] if machine else []))
    assert ran.code == 130
    text = expected(plain, PROMPT, max_new_tokens=5)
    if machine:
        assert ran.data["interrupted"]
        assert ran.data["text"] == text
    else:
        assert ran.out == text + "\n"
    assert last_line(ran.err).startswith("interrupted: 5 tokens, ")


def test_a_signal_ends_the_text(plain: Path) -> None:
    command = [
        *(sys.executable, "-m", "cpuaccel", "generate", str(plain), PROMPT),
        *("--max-new-tokens", "1000000", *ORIGINAL),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    begun = os.read(process.stdout.fileno(), 3)  # streamed: the text does not end
    process.send_signal(signal.SIGINT)
    out, err = (part.decode() for part in process.communicate())
    assert process.returncode == 130, err[-2000:]
    assert (begun.decode() + out).split()[0] == expected(plain, PROMPT).split()[0]
    assert out.endswith("\n")
    assert last_line(err).startswith("interrupted: ")
    assert "Traceback" not in err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_text_that_cannot_be_written_is_printed_on_stderr(
    run: Run, plain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open("/dev/full", "w", encoding="utf-8") as full, monkeypatch.context() as patched:
        patched.setattr("sys.stdout", full)
        ran = run("generate", plain, PROMPT, "--max-new-tokens", 9, *ORIGINAL)
    assert ran.code == 1
    data, _ = json.JSONDecoder().raw_decode(ran.err[ran.err.index("{") :])
    assert data["text"] == expected(plain, PROMPT, max_new_tokens=data["tokens"])
    assert "error: cannot write the results to stdout" in ran.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("",), "PROMPT: must have text, got ''. Pass a text, or - to read standard input"),
        (("  ",), "must have text"),
        (("a\udcff",), "PROMPT: can't be read"),
        (("a", "--dtype", "float16"), "--dtype: must be float32 or bfloat16, got 'float16'"),
        (("a", "--max-new-tokens", 0), "--max-new-tokens"),
        (("a", "--temperature", 1), "--temperature: needs --sample"),
        (("a", "--top-p", 1), "--top-p: needs --sample"),
        (("a", "--seed", 1), "--seed: needs --sample"),
        (("a", "--sample", "--temperature", 0), "--temperature: must be > 0, got 0.0"),
        (("a", "--sample", "--temperature", "nan"), "--temperature: must be > 0, got nan"),
        (("a", "--sample", "--top-p", 1.5), "--top-p: must be > 0 and <= 1, got 1.5"),
        (("a", "--backends", "onednm"), "unknown backend 'onednm'. Did you mean 'onednn'?"),
        ((), "Missing argument 'PROMPT'"),
    ],
)
def test_invalid_arguments(run: Run, arguments: tuple[object, ...], message: str) -> None:
    ran = run("generate", "/nonexistent", *arguments)
    assert ran.code == 2
    assert ran.out == ""
    assert message in ran.err


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe"])
def test_invalid_standard_input(run: Run, content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content), encoding="utf-8"))
    ran = run("generate", "/nonexistent", "-")
    assert ran.code == 2
    assert "Invalid value for PROMPT" in ran.err


def test_help_teaches_with_an_example(run: Run) -> None:
    ran = run("generate", "--help")
    assert ran.code == 0
    assert 'cpuaccel generate ./my-model "Why is the sky blue?"' in ran.out
    for option in ("--no-chat", "--max-new-tokens", "--temperature", "--top-p", "--seed"):
        assert option in ran.out
    assert run("generate").code == 2
