"""What is used around ``generate``: pipelines, chats, streamers, stopping, processors."""

from typing import Any

import pytest
import tokenizers
import torch
import transformers
from transformers.generation.streamers import BaseStreamer

import cpuaccel
from tests.generation.models import (
    BACKENDS,
    VOCABULARY,
    accelerated,
    assert_served,
    decoder,
    prompt,
)

TEXTS = ["a short one", "one that is quite a bit longer than the first", "x"]
TEMPLATE = "{% for m in messages %}{{ m['role'] }} {{ m['content'] }} {% endfor %}"


def tokenizer() -> Any:
    """Make a tokenizer of bytes, with tokens beyond them up to the vocabulary of the models."""
    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    words = ["<pad>", "<s>", *letters]
    words += [f"{a}{b}" for a in letters[:20] for b in letters[:20]][: VOCABULARY - len(words)]
    backend = tokenizers.Tokenizer(
        tokenizers.models.BPE({word: number for number, word in enumerate(words)}, [])
    )
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    made = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", bos_token="<s>", padding_side="left"
    )
    made.chat_template = TEMPLATE
    return made


@pytest.mark.parametrize("search", [{}, {"num_beams": 2}], ids=["greedy", "beams"])
@pytest.mark.parametrize("name", ["llama", "gemma3", "gpt2"])
def test_a_pipeline_for_text_generation(name: str, search: dict[str, int]) -> None:
    model = decoder(name)
    fast: Any = cpuaccel.optimize(model, ["onednn"])
    call = {"max_new_tokens": 8, "do_sample": False, "batch_size": 2, **search}
    found, expected = (
        transformers.pipeline("text-generation", model=m, tokenizer=tokenizer())(TEXTS, **call)
        for m in (fast, model)
    )
    assert found == expected
    assert fast.report.calls == {"optimized": 2}  # three texts in batches of two


def test_a_pipeline_for_chats() -> None:
    model = decoder("llama")
    fast: Any = cpuaccel.optimize(model, ["onednn"])
    chat = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "how are you?"},
    ]
    found, expected = (
        transformers.pipeline("text-generation", model=m, tokenizer=tokenizer())(
            chat, max_new_tokens=8, do_sample=False
        )
        for m in (fast, model)
    )
    assert found == expected
    assert found[0]["generated_text"][-1]["role"] == "assistant"
    assert fast.report.calls == {"optimized": 1}


class Recorder(BaseStreamer):
    """Keeps what is streamed."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.ended = False

    def put(self, value: torch.Tensor) -> None:
        self.tokens += value.flatten().tolist()

    def end(self) -> None:
        self.ended = True


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_streamer(backend: str) -> None:
    model, fast = accelerated("llama", backend)
    recorders = [Recorder(), Recorder()]
    for each, recorder in zip((fast, model), recorders, strict=True):
        each.generate(**prompt(), max_new_tokens=8, do_sample=False, streamer=recorder)
    found, expected = recorders
    assert found.tokens == expected.tokens
    assert len(found.tokens) == prompt()["input_ids"].shape[1] + 8
    assert found.ended


def test_a_streamer_of_text() -> None:
    model, fast = accelerated("llama")
    texts = []
    for each in (fast, model):
        streamer = transformers.TextIteratorStreamer(tokenizer(), skip_prompt=True)
        each.generate(**prompt(), max_new_tokens=8, do_sample=False, streamer=streamer)
        texts.append(list(streamer))
    assert texts[0] == texts[1]
    assert any(texts[0])


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_end_of_text(backend: str) -> None:
    """Rows end at different tokens, and are filled up with padding."""
    model, fast = accelerated("llama", backend)
    inputs = prompt(6, 3)
    expected = model.generate(**inputs, max_new_tokens=12, do_sample=False)
    end = [int(expected[0, 8]), int(expected[1, 10])]
    assert_served(fast, model, inputs, eos_token_id=end, pad_token_id=0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_stopping_criteria(backend: str) -> None:
    model, fast = accelerated("llama", backend)

    class AfterFour(transformers.StoppingCriteria):
        def __call__(self, ids: torch.Tensor, scores: object, **_: object) -> torch.Tensor:
            done = ids.shape[1] >= prompt()["input_ids"].shape[1] + 4
            return torch.full((len(ids),), done)

    criteria = transformers.StoppingCriteriaList([AfterFour()])
    assert_served(fast, model, prompt(), stopping_criteria=criteria)
    found = fast.generate(**prompt(), max_new_tokens=12, stopping_criteria=criteria)
    assert found.shape[1] == prompt()["input_ids"].shape[1] + 4


def test_stop_strings() -> None:
    model, fast = accelerated("llama")
    made = tokenizer()
    text = made.decode(model.generate(**prompt(), max_new_tokens=12, do_sample=False)[0, -8:])
    assert_served(fast, model, prompt(), stop_strings=[text[:2]], tokenizer=made)


PROCESSORS: dict[str, dict[str, Any]] = {
    "repetition penalty": {"repetition_penalty": 1.5},
    "no repeated words": {"no_repeat_ngram_size": 2},
    "least length": {"min_new_tokens": 6, "eos_token_id": [3]},
    "bad words": {"bad_words_ids": [[5], [9, 11]]},
    "sampling": {"do_sample": True, "temperature": 0.8, "top_p": 0.9, "min_p": 0.01},
    "several answers": {"do_sample": True, "num_return_sequences": 3},
    "renormalized": {"renormalize_logits": True, "num_beams": 2},
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("call", PROCESSORS.values(), ids=list(PROCESSORS))
def test_logits_processors(call: dict[str, Any], backend: str) -> None:
    model, fast = accelerated("llama", backend)
    assert_served(fast, model, prompt(), **call)


def test_a_logits_processor_of_the_caller() -> None:
    model, fast = accelerated("llama")

    class OnlyEven(transformers.LogitsProcessor):
        def __call__(self, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            scores = scores.clone()
            scores[:, 1::2] = -float("inf")
            return scores

    processors = transformers.LogitsProcessorList([OnlyEven()])
    assert_served(fast, model, prompt(), logits_processor=processors)
    found = fast.generate(**prompt(), max_new_tokens=5, logits_processor=processors)
    assert not bool((found[:, -5:] % 2).any())


@pytest.mark.parametrize("backend", BACKENDS)
def test_scores_and_logits(backend: str) -> None:
    model, fast = accelerated("llama", backend)
    call = {"max_new_tokens": 6, "do_sample": False, "return_dict_in_generate": True}
    found, expected = (
        m.generate(**prompt(), **call, output_scores=True, output_logits=True)
        for m in (fast, model)
    )
    assert type(found) is type(expected)
    for name in ("scores", "logits"):
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-4)
