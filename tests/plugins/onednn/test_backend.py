"""The backend's verdicts on hosts and models, its contract, copies, and fusions by architecture."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import pytest
import torch

import cpuaccel
from cpuaccel.testing import BackendContract, fake_host
from cpuaccel.testing.outputs import assert_same_output
from tests.models import batch, encoder, left, right, unpadded
from tests.required import requires, unmet

needs_engine = requires("torch>=2.6")

EVERYTHING = cpuaccel.Step("onednn", measure=False)


class TestContract(BackendContract):
    backend = "onednn"


class TestContractOnTransformers(BackendContract):
    backend = "onednn"
    options: ClassVar[dict[str, Any]] = {"measure": False}

    def model(self) -> torch.nn.Module:
        return encoder("bert-qa", num_hidden_layers=1)


class TestContractAfterBetterTransformer(BackendContract):
    backend = "onednn"
    options: ClassVar[dict[str, Any]] = {"measure": False}
    after = ("bettertransformer",)

    def need_engine(self) -> None:
        if unmet(("transformers>=5",)):
            pytest.skip("optimum's layers can't be exported")
        super().need_engine()

    def model(self) -> torch.nn.Module:
        return encoder("bert-token", num_hidden_layers=1)

    def example_inputs(self) -> dict[str, torch.Tensor]:
        return batch("bert-token", 2, 12, right)


def check(**host: Any) -> cpuaccel.Verdict:
    backend = cpuaccel.backends()["onednn"]
    return backend(backend.Options()).check(fake_host(**host))


def test_torch_before_2_6_is_refused() -> None:
    verdict = check(packages={"torch": "2.5.1"})
    assert (
        str(verdict) == 'torch 2.5.1 is installed, >=2.6 is needed. Run: pip install "torch>=2.6"'
    )
    assert check(packages={"torch": "2.6.0"})


def test_it_needs_no_vector_instructions() -> None:
    assert check(isa=frozenset(), torch_isa="DEFAULT", bf16_speed=0.01)


@needs_engine
def test_inputs_that_hold_no_tensor_are_refused() -> None:
    plan = cpuaccel.explain(torch.nn.Identity(), ["onednn"], example_inputs=[3])
    assert plan.steps[0].verdict.reason == "none of the inputs is a tensor"


@needs_engine
def test_a_model_that_cannot_be_exported_says_why() -> None:
    class Branches(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 2 if bool(x.sum() > 0) else x

    fast = cpuaccel.optimize(
        Branches(), ["onednn"], example_inputs=torch.ones(2, 2), freeze_values=True
    )
    (outcome,) = fast.report.outcomes
    assert outcome.status == "failed"
    assert outcome.reason.startswith("torch.export failed on Branches: ")
    assert torch.equal(fast(torch.ones(2, 2)), torch.full((2, 2), 2.0))


@needs_engine
def test_a_model_that_changes_its_buffers_is_refused() -> None:
    class Counts(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            return x + self.calls

    fast = cpuaccel.optimize(Counts(), ["onednn"], example_inputs=torch.ones(2, 2))
    assert fast.report.applied == ()
    assert "state between calls" in fast.report.outcomes[0].reason


@pytest.fixture(scope="module")
def fused() -> cpuaccel.OptimizedModel:
    return cpuaccel.optimize(
        encoder("bert-qa"),
        [EVERYTHING],
        example_inputs=batch("bert-qa", 2, 12, right),
        strict=True,
    )


@needs_engine
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_copy_packs_its_own_weights(duplicate: Any, fused: cpuaccel.OptimizedModel) -> None:
    inputs = batch("bert-qa", 2, 12, right)
    expected = fused(**inputs)
    twin = duplicate(fused)
    output = twin(**inputs)
    assert twin.report.applied == ("onednn",)
    for name, tensor in expected.items():
        torch.testing.assert_close(output[name], tensor)


@needs_engine
def test_a_graph_by_itself_cannot_be_copied(fused: cpuaccel.OptimizedModel) -> None:
    with pytest.raises(TypeError, match="Copy or pickle the optimized model instead"):
        copy.deepcopy(fused.variants[0].model)


@needs_engine
def test_threads_may_call_at_once(fused: cpuaccel.OptimizedModel) -> None:
    batches = [batch("bert-qa", 1 + number, 12 + number, right) for number in range(4)]
    model = encoder("bert-qa")
    with torch.no_grad():
        expected = [model(**inputs) for inputs in batches]
    with ThreadPoolExecutor(4, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for _ in range(3):
            outputs = list(pool.map(lambda inputs: fused(**inputs), batches))
            for inputs, output, original in zip(batches, outputs, expected):
                assert_same_output(output, original, inputs)


@needs_engine
def test_new_weights_are_packed_again() -> None:
    model, inputs = encoder("bert-qa"), batch("bert-qa", 2, 12, right)
    fast = cpuaccel.optimize(model, [EVERYTHING], example_inputs=inputs, strict=True)
    fast.load_state_dict({name: t * 0.5 for name, t in model.state_dict().items()})
    with torch.no_grad():
        expected = model(**inputs)
    assert_same_output(fast(**inputs), expected, inputs)


PER_LAYER = {"concat linear": 1, "linear+add": 2, "linear+gelu": 1, "multi-head attention": 1}


@needs_engine
@requires("transformers>=5")  # whose graphs these are
@pytest.mark.parametrize(
    ("name", "counts", "once"),
    [
        ("bert-qa", PER_LAYER, {}),
        ("bert-text", PER_LAYER, {"linear+tanh": 1}),
        ("roberta-token", PER_LAYER, {}),
        ("distilbert-text", PER_LAYER, {"linear+relu": 1}),
        ("electra-token", PER_LAYER, {}),
        ("vit", PER_LAYER, {}),
        ("wav2vec2", PER_LAYER, {}),
        (
            "albert",
            {"concat linear": 1, "linear+add": 2, "multi-head attention": 1},
            {"linear+tanh": 1},
        ),
        ("modernbert-token", {"linear+add": 2, "multi-head attention": 1}, {"linear+gelu": 1}),
        (
            "t5-encoder",
            {"concat linear": 1, "linear+add": 2, "linear+relu": 1},
            {},
        ),
    ],
)
def test_architectures(name: str, counts: dict[str, int], once: dict[str, int]) -> None:
    model = encoder(name)
    fast = cpuaccel.optimize(
        model, [EVERYTHING], example_inputs=batch(name, 2, 24, right), strict=True
    )
    evidence = fast.report.outcomes[0].evidence
    assert {kind: evidence.get(kind) for kind in (*counts, *once)} == {
        **{kind: 2 * count for kind, count in counts.items()},
        **once,
    }
    for size, length, pad in [(1, 24, unpadded), (5, 31, right), (3, 20, left), (1, 2, unpadded)]:
        inputs = batch(name, size, length, pad)
        with torch.no_grad():
            expected = model(**inputs)
        assert_same_output(fast(**inputs), expected, inputs)
    assert set(fast.report.calls) == {"optimized"}, fast.report
    assert not fast.variants[0].domain.frozen
