"""Tests of the text that ``generate`` returns: it is the original's."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from cpuaccel.testing.generation.decoders import (
    assert_as_likely,
    assert_greedy,
    generated,
    left_padded,
    prompt,
    prompts,
)
from cpuaccel.testing.generation.subject import GenerationSubject

THREADS = 3


class TextContract(GenerationSubject):
    """Whole calls of ``generate``, without a call of the original in them."""

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    def test_greedy_text_is_the_originals(self, dtype: str) -> None:
        self.need_dtype(dtype)
        for name in self.architectures:
            model = self.decoder(name)
            fast = self.generating(model, dtype=dtype)
            for what, inputs in prompts().items():
                found, expected = generated(fast, inputs), generated(model, inputs)
                tolerance = self.tolerance(dtype)
                assert_greedy(model, found, expected, inputs, tolerance, f"{name}, {what}")
            assert fast.report.calls == {"optimized": len(prompts())}, fast.report

    @pytest.mark.parametrize("rows", ["one", "padded"])
    def test_beams_are_the_originals(self, rows: str) -> None:
        """Rows of the cache are repeated, and reordered at each step."""
        inputs = prompt(7) if rows == "one" else left_padded()
        call = {"num_beams": 3, "num_return_sequences": 1, "length_penalty": 0.0}
        for name in self.architectures:
            model = self.decoder(name)
            fast = self.generating(model)
            found, expected = (generated(each, inputs, **call) for each in (fast, model))
            assert_as_likely(model, found, expected, inputs, self.tolerance(), name)
            assert fast.report.calls == {"optimized": 1}, fast.report

    def test_text_with_a_cropped_cache_is_the_originals(self) -> None:
        """Tokens that were looked up in the prompt are computed at once, and partly taken back."""
        inputs = prompt(12)
        inputs = {key: value.repeat(1, 2) for key, value in inputs.items()}
        for name in self.architectures:
            model = self.decoder(name)
            fast = self.generating(model)
            found = generated(fast, inputs, prompt_lookup_num_tokens=4)
            expected = generated(model, inputs, prompt_lookup_num_tokens=4)
            assert_greedy(model, found, expected, inputs, self.tolerance(), name)
            assert fast.report.calls == {"optimized": 1}, fast.report

    @pytest.mark.parametrize("order", ["fof", "ofo"])
    def test_the_original_goes_on_with_the_same_cache(self, order: str) -> None:
        """And the other way round: ``f`` is a turn of the stepper, ``o`` of the original."""
        for name in self.architectures:
            model = self.decoder(name)
            fast = self.generating(model)
            cache, text = None, prompt(9)["input_ids"]
            for turn, kind in enumerate(order):
                inputs = {"input_ids": text, "attention_mask": torch.ones_like(text)}
                output = (fast if kind == "f" else model).generate(
                    **inputs,
                    past_key_values=cache,
                    **{"max_new_tokens": 8, "do_sample": False, "return_dict_in_generate": True},
                )
                found, cache = output.sequences, output.past_key_values
                expected = generated(model, inputs, max_new_tokens=8)
                what = f"{name}, turn {turn + 1} of {order}"
                assert_greedy(model, found, expected, inputs, self.tolerance(), what)
                text = torch.cat([found, prompt(3, seed=turn)["input_ids"]], 1)
            assert fast.report.calls == {"optimized": order.count("f")}, fast.report

    def test_threads_get_their_own_text(self) -> None:
        inputs = [prompt(5 + index, 1 + index % 2, seed=index) for index in range(2 * THREADS)]
        for name in self.architectures:
            model = self.decoder(name)
            fast = self.generating(model)
            expected = [generated(model, each) for each in inputs]
            with ThreadPoolExecutor(THREADS) as pool:
                found = list(pool.map(lambda each, fast=fast: generated(fast, each), inputs))
            for index, texts in enumerate(zip(found, expected, inputs, strict=True)):
                assert_greedy(model, *texts, self.tolerance(), f"{name}, thread {index}")
            assert fast.report.calls == {"optimized": len(inputs)}, fast.report

    def test_two_models_are_independent(self) -> None:
        name, inputs = self.architectures[0], prompt(9)
        models: list[Any] = [self.decoder(name), self.decoder(name)]
        with torch.no_grad():
            for parameter in models[1].parameters():
                parameter.mul_(1.5)
        for model, fast in [(model, self.generating(model)) for model in models]:
            found, expected = generated(fast, inputs), generated(model, inputs)
            assert_greedy(model, found, expected, inputs, self.tolerance(), name)

    def test_changed_weights_are_used(self) -> None:
        inputs = prompt(9)
        for name in self.architectures:
            model = self.decoder(name)
            fast = self.generating(model)
            for _ in range(2):
                found, expected = generated(fast, inputs), generated(model, inputs)
                assert_greedy(model, found, expected, inputs, self.tolerance(), name)
                with torch.no_grad():
                    for parameter in model.parameters():
                        parameter.mul_(1.5)  # in place, as an optimizer's step does

    def test_an_unusual_decoder_is_served_or_left_to_the_original(self) -> None:
        from cpuaccel.testing.generation.decoders import CONFIGS

        self.need_generation()
        for name in CONFIGS:
            model, inputs = self.decoder(name), prompt(9)
            fast = self.generating(model, strict=False)
            found, expected = generated(fast, inputs), generated(model, inputs)
            assert_greedy(model, found, expected, inputs, self.tolerance(), name)
