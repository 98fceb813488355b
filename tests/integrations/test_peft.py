"""Adapters of peft that are switched, disabled or merged are used by the next call."""

from collections.abc import Callable

import pytest
import torch

import cpuaccel
from cpuaccel.testing.models import TEXT
from tests.conftest import Offer
from tests.fake_backends import Copying
from tests.required import NATIVE, requires

pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")
from peft import LoraConfig, get_peft_model  # noqa: E402

pytestmark = [
    # From peft 0.21 with transformers 5.23.
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Adapter one was active which is now deleted:UserWarning"),
]

BACKENDS = [
    pytest.param("jit"),
    pytest.param("copying"),
    pytest.param("bettertransformer", marks=requires(*NATIVE)),
]


@pytest.fixture(autouse=True)
def _backends(offer: Offer) -> None:
    offer(Copying)


def adapted() -> torch.nn.Module:
    """Make a BERT with two adapters, of which the first is active."""
    torch.manual_seed(0)
    config = transformers.BertConfig(**TEXT)
    adapters = [
        LoraConfig(r=4, target_modules=["query", "value"], init_lora_weights=False)
        for _ in range(2)
    ]
    model = get_peft_model(transformers.BertModel(config), adapters[0], adapter_name="one")
    model.add_adapter("two", adapters[1])
    model.set_adapter("one")
    return model.eval()  # type: ignore[no-any-return]


INPUTS = {
    "input_ids": torch.randint(1, 64, (2, 8), generator=torch.Generator().manual_seed(0)),
    "attention_mask": torch.ones(2, 8, dtype=torch.long),
}

CHANGES: dict[str, Callable[..., object]] = {
    "set_adapter": lambda m: m.set_adapter("two"),
    "disable_adapter_layers": lambda m: m.base_model.disable_adapter_layers(),
    "delete_adapter": lambda m: m.delete_adapter("one"),
    "scaled": lambda m: m.base_model.model.encoder.layer[
        0
    ].attention.self.query.scaling.__setitem__("one", 8.0),
}


def output(model: Callable[..., object]) -> torch.Tensor:
    with torch.no_grad():
        hidden: torch.Tensor = model(**INPUTS).last_hidden_state  # type: ignore[attr-defined]
    return hidden


def optimized(model: torch.nn.Module, backend: str) -> cpuaccel.OptimizedModel:
    fast = cpuaccel.optimize(model, [backend], example_inputs=INPUTS, strict=True)
    torch.testing.assert_close(output(fast), output(model), rtol=1e-4, atol=1e-4)
    return fast


@pytest.mark.parametrize("change", CHANGES.values(), ids=list(CHANGES))
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("through", ["original", "optimized"])
def test_another_adapter_is_used(backend: str, change: Callable[..., object], through: str) -> None:
    model = adapted()
    fast = optimized(model, backend)
    before = output(fast)
    change(model if through == "original" else fast)
    after = output(fast)
    assert not torch.allclose(before, after, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(after, output(model), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_adapters_are_off_in_their_context(backend: str) -> None:
    model = adapted()
    fast = optimized(model, backend)
    before = output(fast)
    with fast.disable_adapter():
        without = output(fast)
        torch.testing.assert_close(without, output(model), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(before, without, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(output(fast), output(model), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_merged_adapter_is_not_added_twice(backend: str) -> None:
    """Merging writes through ``.data``, which torch does not count."""
    model = adapted()
    fast = optimized(model, backend)
    before = output(fast)
    model.merge_adapter()  # type: ignore[operator]
    torch.testing.assert_close(output(fast), before, rtol=1e-4, atol=1e-4)
    model.unmerge_adapter()  # type: ignore[operator]
    torch.testing.assert_close(output(fast), before, rtol=1e-4, atol=1e-4)
    merged = model.merge_and_unload()  # type: ignore[operator]
    torch.testing.assert_close(output(fast), before, rtol=1e-4, atol=1e-4)
    fast = optimized(merged, backend)
    torch.testing.assert_close(output(fast), before, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_merged_adapter_that_is_disabled_is_subtracted_once(backend: str) -> None:
    """The next call subtracts it from the weights, which the original and its copies share."""
    model, expected = adapted(), adapted()
    fast = optimized(model, backend)
    model.merge_adapter()  # type: ignore[operator]
    for each in (model, expected):
        each.base_model.disable_adapter_layers()  # type: ignore[operator,union-attr]
    for each in (fast, model):
        torch.testing.assert_close(output(each), output(expected), rtol=1e-4, atol=1e-4)
