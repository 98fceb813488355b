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
import transformers

from cpuaccel import Host, Stepper
from cpuaccel.cli.models.load import load_model
from tests.cli.backends import Faithful
from tests.cli.conftest import Run
from tests.conftest import Offer
from tests.required import NATIVE, requires

pytestmark = requires("transformers>=4.48")

PROMPT = "w3 w14 w15"
TOKENS = 24
SHORT = ("--max-new-tokens", TOKENS)
ORIGINAL = ("--backends", "jit")
"""A pipeline that does not generate, so that nothing is built."""

SPECIAL = ["<unk>", "<s>", "</s>", "<user>", "<bot>"]
CHAT = (
    "{% for m in messages %}<user> {{ m['content'] }} {% endfor %}"
    "{% if add_generation_prompt %}<bot>{% endif %}"
)
VOCABULARY = 64
EOS = SPECIAL.index("</s>")
SPEED = r"\d+ tokens, [\d.]+ tokens/s, first token after [\d.]+ s"


def make_tokenizer(template: str | None) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = [*SPECIAL, *(f"w{number}" for number in range(VOCABULARY - len(SPECIAL)))]
    level = models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>")
    backend = Tokenizer(level)
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    names = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    tokenizer: Any = transformers.PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=backend, additional_special_tokens=["<user>", "<bot>"], **names
    )
    tokenizer.chat_template = template
    return tokenizer


def make_llama() -> Any:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        bos_token_id=SPECIAL.index("<s>"),
        eos_token_id=EOS,
    )
    model: Any = transformers.LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(8)  # otherwise all tokens are about as probable
        model.lm_head.weight[EOS] = 0  # never the most probable
    return model.eval()


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, and a tokenizer with a chat template."""
    return saved(make_llama(), CHAT, tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same without a chat template."""
    return saved(make_llama(), None, tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="session")
def t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an encoder-decoder model."""
    torch.manual_seed(0)
    config_class: Any = transformers.T5Config
    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
    config = config_class(
        vocab_size=VOCABULARY, decoder_start_token_id=0, eos_token_id=EOS, **sizes
    )
    model = transformers.T5ForConditionalGeneration(config)
    return saved(model, None, tmp_path_factory.mktemp("t5"))


def saved(model: Any, template: str | None, folder: Path) -> Path:
    model.save_pretrained(folder)
    make_tokenizer(template).save_pretrained(folder)
    return folder


def expected(folder: Path, prompt: str, **options: object) -> str:
    """The text that the original generates."""
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(str(folder))
    kind: Any = transformers.AutoModelForCausalLM
    if "t5" in folder.name:
        kind = transformers.AutoModelForSeq2SeqLM
    model = kind.from_pretrained(str(folder)).eval()
    inputs = tokenizer(prompt, return_tensors="pt")
    arguments: dict[str, Any] = {"max_new_tokens": TOKENS, "do_sample": False, **options}
    output = model.generate(inputs.input_ids, attention_mask=inputs.attention_mask, **arguments)
    skipped = 1 if "t5" in folder.name else inputs.input_ids.shape[1]
    return str(tokenizer.decode(output[0, skipped:], skip_special_tokens=True))


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


@requires(*NATIVE)
def test_an_encoder_decoder_is_served_by_the_original(run: Run, t5: Path) -> None:
    ran = run("generate", t5, PROMPT, *SHORT)
    assert ran.code == 0
    assert ran.out == expected(t5, PROMPT) + "\n"
    assert re.fullmatch(
        f"{SPEED} \\(original: generate is not accelerated: T5ForConditionalGeneration has an "
        r"encoder and a decoder.*\)",
        last_line(ran.err),
    )


def test_a_pipeline_that_does_not_generate(run: Run, plain: Path) -> None:
    ran = run("generate", plain, PROMPT, *SHORT, *ORIGINAL)
    assert ran.code == 0
    assert ran.out == expected(plain, PROMPT) + "\n"
    assert re.fullmatch(
        f"{SPEED} \\(original: generate is not accelerated. Pass --backends onednn or int8, "
        r"and use transformers>=5\)",
        last_line(ran.err),
    )


class Stumbling(Faithful):
    """Raises in the third step."""

    name = "stumbling"
    generates = True

    def stepper(self, model: torch.nn.Module, host: Host) -> Stepper:
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


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("/nonexistent", "there is no folder /nonexistent. Pass a folder"),
        ("./nonexistent", "there is no folder ./nonexistent"),
        ("/dev/null", "/dev/null is a file, not a folder"),
        ("demo", "demo is not a language model with a tokenizer. Pass"),
        ("config:bert-tiny", "config:bert-tiny is not a language model with a tokenizer"),
    ],
)
def test_models_that_are_not_there(run: Run, model: str, message: str) -> None:
    ran = run("generate", model, PROMPT)
    assert ran.code == 1
    assert ran.out == ""
    assert message in ran.err


def test_a_hub_id_without_a_network(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    ran = run("generate", "nobody/nothing", PROMPT)
    assert ran.code == 1
    assert "nobody/nothing can't be loaded" in ran.err


def test_a_folder_without_a_config(run: Run, tmp_path: Path) -> None:
    ran = run("generate", tmp_path, PROMPT)
    assert ran.code == 1
    assert "has no config.json. Pass a folder that save_pretrained wrote" in ran.err


def test_a_folder_without_a_tokenizer(run: Run, tmp_path: Path) -> None:
    make_llama().save_pretrained(tmp_path)
    ran = run("generate", tmp_path, PROMPT)
    assert ran.code == 1
    assert f"the folder {tmp_path} has no tokenizer. Save that of the model" in ran.err
    assert "AutoTokenizer.from_pretrained(NAME).save_pretrained(FOLDER)" in ran.err


def test_a_tokenizer_that_is_damaged(run: Run, tmp_path: Path) -> None:
    make_llama().save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    ran = run("generate", tmp_path, PROMPT)
    assert ran.code == 1
    assert f"the tokenizer of {tmp_path} can't be loaded: " in ran.err


def test_weights_that_are_damaged(run: Run, tmp_path: Path) -> None:
    make_llama().save_pretrained(tmp_path)
    make_tokenizer(CHAT).save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    ran = run("generate", tmp_path, PROMPT)
    assert ran.code == 1
    assert f"{tmp_path} can't be loaded: " in ran.err


def test_a_model_without_generate(run: Run, tmp_path: Path) -> None:
    load_model("config:vit-tiny").save_pretrained(tmp_path)  # type: ignore[operator]
    ran = run("generate", tmp_path, PROMPT)
    assert ran.code == 1
    assert f"{tmp_path} is a ViTForImageClassification, which has no generate. Pass a" in ran.err


def test_a_model_that_hears(run: Run, tmp_path: Path) -> None:
    config = transformers.WhisperConfig()
    config.architectures = ["WhisperForConditionalGeneration"]
    config.save_pretrained(tmp_path)
    ran = run("generate", tmp_path, PROMPT)
    assert ran.code == 1
    assert "is a WhisperForConditionalGeneration, whose input is not text" in ran.err


def test_a_config_that_names_no_class(run: Run, llama: Path, tmp_path: Path) -> None:
    for file in llama.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    text = json.loads((tmp_path / "config.json").read_text())
    text["architectures"] = ["MyLlama"]
    (tmp_path / "config.json").write_text(json.dumps(text))
    ran = run("generate", tmp_path, PROMPT, *SHORT, *ORIGINAL, "--no-chat")
    assert ran.out == expected(llama, PROMPT) + "\n"


def test_chat_without_a_template(run: Run, plain: Path) -> None:
    ran = run("generate", plain, PROMPT, "--chat")
    assert ran.code == 1
    assert f"the tokenizer of {plain} has no chat template. Leave out --chat" in ran.err


def test_a_chat_template_that_raises(run: Run, tmp_path: Path) -> None:
    make_llama().save_pretrained(tmp_path)
    make_tokenizer("{{ raise_exception('a system message is needed') }}").save_pretrained(tmp_path)
    ran = run("generate", tmp_path, PROMPT)
    assert ran.code == 1
    assert "a system message is needed. Pass --no-chat" in ran.err


def test_a_model_that_raises(run: Run, plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> object:
        raise IndexError("index out of range in self")

    monkeypatch.setattr(transformers.LlamaForCausalLM, "forward", broken)
    ran = run("generate", plain, PROMPT, *ORIGINAL)
    assert ran.code == 1
    assert "raised IndexError: index out of range in self after 0 tokens. Pass a sho" in ran.err


def test_help_teaches_with_an_example(run: Run) -> None:
    ran = run("generate", "--help")
    assert ran.code == 0
    assert 'cpuaccel generate ./my-model "Why is the sky blue?"' in ran.out
    for option in ("--no-chat", "--max-new-tokens", "--temperature", "--top-p", "--seed"):
        assert option in ran.out
    assert run("generate").code == 2
