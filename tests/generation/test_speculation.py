"""Guessing tokens by a draft changes when logits are computed, and never what they are."""

import copy
import functools
import gc
import re
import weakref
from typing import Any

import pytest
import torch
from transformers.cache_utils import DynamicCache

import cpuaccel
from cpuaccel import Step
from cpuaccel.generation.cache import let_grow
from cpuaccel_plugins.onednn import speculation
from tests.generation.encoder_decoders import assert_served as assert_text_served
from tests.generation.encoder_decoders import encoder_decoder, source
from tests.generation.models import assert_served, decoder, left_padded, prompt, tokens_of

DECODERS = ("llama", "qwen2", "gpt2", "mixtral")
READERS = ("whisper", "t5", "bart", "marian")
CALLS: dict[str, dict[str, object]] = {
    "greedy": {},
    "sampling": {"do_sample": True, "top_k": 20},
    "no repetition": {"no_repeat_ngram_size": 2, "repetition_penalty": 1.3},
}


@functools.cache
def drafted(name: str, bits: int = 8) -> tuple[Any, Any]:
    """A decoder, and itself with a draft."""
    model = decoder(name)
    return model, cpuaccel.optimize(model, [Step("onednn", draft_bits=bits)])


class Counted:
    """Counts the calls of both decoders."""

    def __init__(self, made: speculation.Speculation, monkeypatch: pytest.MonkeyPatch) -> None:
        self.exact: list[int] = []
        self.draft: list[int] = []
        self._count(made, "_exact", self.exact, monkeypatch)
        self._count(made, "_draft", self.draft, monkeypatch)

    @staticmethod
    def _count(made: Any, name: str, counts: list[int], patch: pytest.MonkeyPatch) -> None:
        forward = getattr(made, name)

        def counted(**inputs: Any) -> object:
            ids = inputs.get("input_ids", inputs.get("decoder_input_ids"))
            counts.append(ids.shape[1])
            return forward(**inputs)

        patch.setattr(made, name, counted)


def speculation_of(fast: Any) -> speculation.Speculation:
    fast.generate(input_ids=torch.tensor([[5]]), max_new_tokens=1)  # builds it
    forward = fast.report.generation.stepper.forward
    assert isinstance(forward, speculation.Speculation)
    return forward


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("name", DECODERS)
def test_tokens_are_those_of_the_original(name: str, bits: int, call: str) -> None:
    model, fast = drafted(name, bits)
    assert_served(fast, model, prompt(), **CALLS[call])


@pytest.mark.parametrize("name", READERS)
def test_encoder_decoders_too(name: str) -> None:
    model = encoder_decoder(name)
    fast = cpuaccel.optimize(model, [Step("onednn", draft_bits=8)])
    one = {key: value[:1] for key, value in source(name, model).items()}
    assert_text_served(fast, model, one)
    assert_text_served(fast, model, source(name, model), num_beams=3)


def test_the_weights_are_read_for_several_tokens_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, fast = drafted("llama")
    counted = Counted(speculation_of(fast), monkeypatch)
    tokens = tokens_of(fast, prompt(), max_new_tokens=41)
    assert torch.equal(tokens, tokens_of(model, prompt(), max_new_tokens=41))
    steps = counted.exact[1:]  # after the prefill
    assert len(steps) < 40
    assert speculation.GUESSES + 1 in steps
    assert fast.report.generation.meter.steps  # each token is a step of its own


def test_logits_are_exact() -> None:
    model, fast = drafted("llama", 4)
    wanted = {"return_dict_in_generate": True, "output_logits": True, "max_new_tokens": 24}
    found = fast.generate(**prompt(), do_sample=False, **wanted)
    expected = model.generate(**prompt(), do_sample=False, **wanted)
    torch.testing.assert_close(torch.stack(found.logits), torch.stack(expected.logits))


def test_wrong_guesses_cost_ever_fewer_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    model, fast = drafted("llama")
    made = speculation_of(fast)
    draft = made._draft

    def wrong(**inputs: Any) -> object:
        output: Any = draft(**inputs)
        return type(output)(**{**output, "logits": -output.logits})

    monkeypatch.setattr(made, "_draft", wrong)
    counted = Counted(made, monkeypatch)
    assert_served(fast, model, prompt(), max_new_tokens=60)
    assert 0 < len(counted.draft) < 10 * speculation.GUESSES


@pytest.mark.parametrize(
    ("inputs", "call"),
    [(prompt(batch=2), {}), (left_padded(), {}), (prompt(), {"num_beams": 3})],
    ids=["batch", "padded", "beams"],
)
def test_nothing_is_guessed_for_several_rows(
    inputs: dict[str, torch.Tensor], call: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, fast = drafted("qwen2")
    counted = Counted(speculation_of(fast), monkeypatch)
    assert_served(fast, model, inputs, **call)
    assert not counted.draft


def test_there_is_no_draft_for_a_sliding_window() -> None:
    model, fast = drafted("gemma3")
    assert_served(fast, model, prompt(), max_new_tokens=20)
    assert "draft none, since the model has sliding windows" in str(fast.report)
    assert fast.report.generation.meter.share_of_bandwidth > 0


def test_a_cache_holds_only_what_was_generated() -> None:
    model, fast = drafted("llama")
    caches = []
    for one in (fast, model):
        made = one.generate(
            **prompt(), do_sample=False, max_new_tokens=9, return_dict_in_generate=True
        )
        caches.append(made.past_key_values)
    found, expected = caches
    assert found.get_seq_length() == expected.get_seq_length()
    for ours, theirs in zip(found.layers, expected.layers):
        torch.testing.assert_close(ours.keys, theirs.keys)
        torch.testing.assert_close(ours.values, theirs.values)


LENGTH = 11
"""Tokens of the prompt."""


def step(forward: Any, cache: DynamicCache, token: int, **changed: torch.Tensor) -> torch.Tensor:
    """The logits of the next token, with the inputs of ``generate`` but for some."""
    length = cache.get_seq_length()
    inputs = {
        "input_ids": torch.tensor([[token]]),
        "position_ids": torch.tensor([[length]]),
        "attention_mask": torch.ones(1, length + 1, dtype=torch.long),
    }
    logits: torch.Tensor = forward(
        **{**inputs, **changed}, past_key_values=cache, use_cache=True
    ).logits
    return logits


def begun(forward: Any) -> tuple[DynamicCache, int]:
    """A cache after a prompt and a step, and the token of the step."""
    cache = DynamicCache()
    let_grow(cache)
    ids = prompt(LENGTH)["input_ids"]
    token = int(
        forward(input_ids=ids, past_key_values=cache, use_cache=True).logits[0, -1].argmax()
    )
    step(forward, cache, token)
    return cache, token


def guessing(fast: Any) -> tuple[speculation.Speculation, DynamicCache, int, int]:
    """A stepper, a cache, the token of the last step, and the one that is guessed."""
    forward = speculation_of(fast)
    cache, token = begun(forward)
    tokens = forward._known[cache].tokens
    assert len(tokens) == speculation.GUESSES
    return forward, cache, token, tokens[0]


@torch.no_grad()
def test_a_cache_that_was_changed_is_computed_anew() -> None:
    model, fast = drafted("llama")
    forward, cache, token, guessed = guessing(fast)
    other = (token + 1) % 400
    reference, _ = begun(model)
    for changed in (cache, reference):
        changed.crop(-1)
        step(model, changed, other)
    found = step(forward, cache, guessed)
    torch.testing.assert_close(found, step(model, reference, guessed))


@torch.no_grad()
def test_a_copied_cache_goes_its_own_way() -> None:
    model, fast = drafted("llama")
    forward, cache, _, guessed = guessing(fast)
    copied, other = copy.deepcopy(cache), (guessed + 1) % 400
    theirs, _ = begun(model)
    their_copy = copy.deepcopy(theirs)
    for ours, reference, token in (
        (copied, their_copy, other),
        (cache, theirs, guessed),
        (copied, their_copy, guessed),
    ):
        found = step(forward, ours, token)
        torch.testing.assert_close(found, step(model, reference, token))


@pytest.mark.parametrize("changed", ["attention_mask", "position_ids"])
@torch.no_grad()
def test_a_step_with_other_inputs_is_computed_anew(changed: str) -> None:
    model, fast = drafted("llama")
    forward, cache, _, guessed = guessing(fast)
    mask = torch.ones(1, LENGTH + 2, dtype=torch.long)
    mask[0, :3] = 0
    other = {"attention_mask": mask, "position_ids": torch.tensor([[LENGTH + 7]])}[changed]
    found = step(forward, cache, guessed, **{changed: other})
    expected = step(model, begun(model)[0], guessed, **{changed: other})
    torch.testing.assert_close(found, expected)


@torch.no_grad()
def test_nothing_is_kept_of_a_cache_that_is_gone() -> None:
    _, fast = drafted("llama")
    forward, cache, _, _ = guessing(fast)
    gone = weakref.ref(cache)
    del cache
    gc.collect()
    assert gone() is None
    assert not len(forward._known)


def test_the_report_says_what_the_draft_takes_and_gives() -> None:
    model = decoder("llama")
    fast: Any = cpuaccel.optimize(model, [Step("onednn", draft_bits=8)])
    tokens_of(fast, prompt(), max_new_tokens=30)
    report = str(fast.report)
    assert "draft 8 bits, " in report
    (counted,) = re.findall(r"(\d+) of (\d+) guesses right", report)
    right, guessed = map(int, counted)
    assert 0 < right <= guessed
    assert "GB/s" not in report
    assert fast.report.generation.meter.share_of_bandwidth == 0


def test_saved_and_loaded(tmp_path: Any) -> None:
    model, fast = drafted("llama")
    tokens_of(fast, prompt())
    fast.save(tmp_path / "saved")
    loaded = cpuaccel.load(tmp_path / "saved")
    assert_served(loaded, model, prompt())
    assert "draft" in str(loaded.report)
