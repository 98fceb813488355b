"""The native implementation, through Transformers' attention interface."""

import logging
from collections.abc import Callable
from typing import ClassVar

import pytest
import torch
from packaging.version import Version

import cpuaccel
from cpuaccel.testing import BackendContract, fake_host
from cpuaccel.testing.outputs import tensors
from tests.models import batch, encoder, left, right, unpadded
from tests.plugins.engines import UNSEEN, verdict_on
from tests.plugins.outputs import assert_outputs_match
from tests.required import BF16, NATIVE, requires, unmet

native = requires(*NATIVE)

SERVED = [
    "bert-qa",
    "bert-text",
    "bert-token",
    "roberta-qa",
    "roberta-text",
    "roberta-token",
    "electra-token",
    "albert",
    "distilbert-qa",
    "distilbert-text",
    "distilbert-token",
    "modernbert-token",
    "vit",
    "wav2vec2",
]
UNTRACEABLE = {"modernbert-token"}


@native
@pytest.mark.parametrize(
    ("name", "steps"),
    [
        (name, steps)
        for name in SERVED
        for steps in (["bettertransformer"], ["bettertransformer", "jit"])
        if "jit" not in steps or name not in UNTRACEABLE
    ],
)
def test_one_build_serves_unseen_shapes_and_paddings(name: str, steps: list[str]) -> None:
    model = encoder(name)
    fast = cpuaccel.optimize(model, steps, example_inputs=batch(name, 2, 24, right), strict=True)
    assert fast.report.applied == tuple(steps)
    for size, length, pad in (*UNSEEN, (7, 40, unpadded)):
        assert_outputs_match(fast, model, batch(name, size, length, pad))
    assert set(fast.report.calls) == {"optimized"}, fast.report


@requires(*NATIVE, BF16)
@pytest.mark.parametrize("name", ["bert-qa", "albert", "vit"])
def test_bfloat16_is_close_and_keeps_the_output_dtype(name: str) -> None:
    inputs = batch(name, 3, 24, right)
    fast = cpuaccel.optimize(
        encoder(name), ["bettertransformer"], dtype="bfloat16", example_inputs=inputs, strict=True
    )
    assert {tensor.dtype for tensor in tensors(fast(**inputs))} == {torch.float32}
    assert fast.report.applied == ("dtype", "bettertransformer")


@native
def test_padding_is_not_computed() -> None:
    """The feed-forward layers see the real tokens only."""
    seen: list[int] = []
    model = encoder("bert-token")
    inputs = batch("bert-token", 4, 24, right)
    fast = cpuaccel.optimize(model, ["bettertransformer"], example_inputs=inputs, strict=True)
    transformed = fast.variants[0].model
    assert isinstance(transformed, torch.nn.Module)
    feed = transformed.get_submodule("bert.encoder.layer.0.intermediate")
    feed.register_forward_hook(lambda module, args, output: seen.append(output[..., 0].numel()))
    fast(**inputs)
    assert seen == [int(inputs["attention_mask"].sum())]


@native
def test_evidence_counts_replaced_modules() -> None:
    fast = cpuaccel.optimize(
        encoder("bert-qa"), ["bettertransformer"], example_inputs=batch("bert-qa", 2, 8, right)
    )
    assert fast.report.outcomes[0].evidence == {
        "implementation": "native",
        "attention_modules": 2,
        "packing_layers": 2,
    }


@native
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("mpnet", "MPNetModel does not use Transformers' attention interface"),
        ("gpt2", "GPT2Attention is causal"),
        ("t5-encoder", "T5Attention adds a position bias to its scores"),
    ],
)
def test_unsupported_attention_fails(
    name: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    model, inputs = encoder(name), batch(name, 2, 12, right)
    with caplog.at_level(logging.WARNING, logger="cpuaccel"):
        fast = cpuaccel.optimize(model, ["bettertransformer"], example_inputs=inputs)
    (outcome,) = fast.report.outcomes
    assert outcome.status == "failed"
    assert outcome.reason.startswith(reason)
    assert outcome.remedy == "Leave bettertransformer out for this model"
    assert [r for r in caplog.messages if "bettertransformer" in r] == [str(outcome)]
    assert_outputs_match(fast, model, inputs)


@native
def test_windowed_attention_is_not_traced_packed() -> None:
    model, inputs = encoder("modernbert-token"), batch("modernbert-token", 2, 12, right)
    fast = cpuaccel.optimize(model, ["bettertransformer", "jit"], example_inputs=inputs)
    packed, traced = fast.report.outcomes
    assert packed.status == "applied"
    assert "windowed attention without padding can't be traced" in traced.reason
    assert_outputs_match(fast, model, batch("modernbert-token", 3, 20, left))


@native
@pytest.mark.parametrize("built", ["for the call", "without hidden states"])
@pytest.mark.parametrize("steps", [["bettertransformer"], ["bettertransformer", "jit"]])
@pytest.mark.parametrize("name", ["bert-token", "distilbert-token", "albert", "vit"])
def test_hidden_states_are_padded_like_the_originals(
    name: str, steps: list[str], built: str
) -> None:
    model, inputs = encoder(name), batch(name, 2, 12, right)
    asked = {"output_hidden_states": True}
    example = {**inputs, **asked} if built == "for the call" else inputs
    fast = cpuaccel.optimize(model, steps, example_inputs=example, strict=True)
    for size, length, pad in ((2, 12, right), (1, 17, right), (3, 9, left)):
        inputs = batch(name, size, length, pad)
        with torch.no_grad():
            expected = model(**inputs, **asked)
        found = fast(**inputs, **asked)
        assert len(found.hidden_states) == len(expected.hidden_states) == 3
        mask = inputs.get("attention_mask")
        real = slice(None) if mask is None else mask.bool()
        for mine, theirs in zip(found.hidden_states, expected.hidden_states, strict=True):
            assert mine.shape == theirs.shape
            torch.testing.assert_close(mine[real], theirs[real])
    assert set(fast.report.calls) == {"optimized"}, fast.report


@native
@pytest.mark.parametrize("steps", [["bettertransformer"], ["bettertransformer", "onednn"]])
def test_hidden_states_of_an_encoder_that_is_its_own_model(steps: list[str]) -> None:
    model, inputs = encoder("modernbert-token"), batch("modernbert-token", 2, 12, right)
    inputs["output_hidden_states"] = True
    fast = cpuaccel.optimize(model, steps, example_inputs=inputs, strict=True)
    assert_outputs_match(fast, model, inputs)


@native
def test_attention_weights_are_refused() -> None:
    model, inputs = encoder("bert-token"), batch("bert-token", 2, 12, right)
    model.set_attn_implementation("eager")
    inputs["output_attentions"] = True
    fast = cpuaccel.optimize(model, ["bettertransformer"], example_inputs=inputs)
    assert str(fast.report.outcomes[0]) == (
        "bettertransformer: failed. output_attentions is requested, and fused attention computes "
        "no attention weights. Leave out output_attentions, or bettertransformer."
    )


@native
@pytest.mark.parametrize("pad", [unpadded, right])
def test_heads_that_share_keys_are_refused_before_attention_is_computed(
    pad: Callable[[torch.Tensor], None],
) -> None:
    model, inputs = encoder("eurobert"), batch("eurobert", 2, 12, pad)
    fast = cpuaccel.optimize(model, ["bettertransformer"], example_inputs=inputs)
    assert fast.report.outcomes[0].reason == (
        "EuroBertAttention shares keys between heads, which bettertransformer does not support"
    )


@native
def test_the_callers_model_keeps_its_attention() -> None:
    model = encoder("bert-qa")
    before = model.config._attn_implementation
    cpuaccel.optimize(
        model, ["bettertransformer"], example_inputs=batch("bert-qa", 2, 8, right), strict=True
    )
    assert model.config._attn_implementation == before
    assert not model.bert.encoder._forward_hooks


@native
def test_a_row_of_padding_only_keeps_its_pooled_output() -> None:
    model = encoder("bert-text")
    inputs = batch("bert-text", 3, 12, right)
    inputs["attention_mask"][1] = 0
    fast = cpuaccel.optimize(model, ["bettertransformer"], example_inputs=inputs, strict=True)
    assert_outputs_match(fast, model, inputs)


def test_a_plain_module_is_refused() -> None:
    backend, model = cpuaccel.backends()["bettertransformer"], torch.nn.Linear(2, 2)
    signature = cpuaccel.Signature.from_inputs(model, torch.ones(1, 2))
    verdict = backend(backend.Options()).accepts(model, signature)
    assert verdict.reason == "Linear is not a Transformers model"


@pytest.mark.parametrize(
    ("implementation", "packages", "said"),
    [
        ("auto", {"torch": "2.13.0", "transformers": "5.23.0"}, ""),
        ("auto", {"torch": "2.8.0", "transformers": "4.48.3", "optimum": "1.24.0"}, ""),
        ("optimum", {"torch": "2.13.0", "transformers": "5.23.0"}, "optimum is not installed"),
        (
            "optimum",
            {"torch": "2.8.0", "transformers": "4.49.0", "optimum": "1.24.0"},
            "transformers 4.49.0 is installed, <4.49 is needed",
        ),
        (
            "native",
            {"torch": "2.8.0", "transformers": "4.48.3"},
            "transformers 4.48.3 is installed, >=5 is needed",
        ),
        ("auto", {"torch": "2.13.0", "transformers": "4.57.0"}, "transformers 4.57.0 is installed"),
        ("auto", {"torch": "1.13.1", "transformers": "4.30.2", "optimum": "1.8.8"}, ""),
        (
            "auto",
            {"torch": "1.12.1", "transformers": "4.30.2", "optimum": "1.8.8"},
            "torch 1.12.1 is installed, >=1.13 is needed",
        ),
        ("auto", {"torch": "2.13.0"}, "transformers is not installed"),
    ],
)
def test_which_implementation_an_environment_can_have(
    implementation: str, packages: dict[str, str], said: str
) -> None:
    verdict = verdict_on(
        "bettertransformer", fake_host(packages=packages), implementation=implementation
    )
    assert bool(verdict) is not bool(said)
    assert said in verdict.reason


@pytest.mark.parametrize(
    ("implementation", "said"),
    [
        (
            "auto",
            "; the native implementation: torch 1.13.0a0+gitunknown is installed, >=2.4 is needed "
            "and transformers 4.30.2 is installed, >=5 is needed",
        ),
        ("optimum", ""),
    ],
)
def test_a_pre_release_of_torch_that_optimum_rejects(implementation: str, said: str) -> None:
    packages = {"torch": "1.13.0a0+gitunknown", "transformers": "4.30.2", "optimum": "1.8.8"}
    verdict = verdict_on(
        "bettertransformer", fake_host(packages=packages), implementation=implementation
    )
    assert verdict.reason == (
        f"optimum 1.8.8 rejects torch 1.13.0a0+gitunknown as a pre-release older than 1.13.0{said}"
    )
    assert verdict.remedy == ("Install a release of torch >= 1.13.0, or use jit alone")


class TestContract(BackendContract):
    backend = "bettertransformer"
    needs: ClassVar[dict[str, bool]] = {
        "a torch that optimum accepts": Version(cpuaccel.host().packages["torch"])
        >= Version("1.13.0")
    }
    # optimum does not support padding on the left: the original runs.
    varies = ("batch", "length", *(["left padding"] if not unmet(NATIVE) else []), "right padding")

    def model(self) -> torch.nn.Module:
        return encoder("bert-token", num_hidden_layers=1)

    def example_inputs(self) -> dict[str, torch.Tensor]:
        return batch("bert-token", 2, 12, unpadded)
