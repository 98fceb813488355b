import threading

import pytest
import torch

from cpuaccel import shared_copy
from cpuaccel.errors import ModelError
from cpuaccel.testing import MaskedEncoder


class Tied(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(5, 3)
        self.head = torch.nn.Linear(3, 5, bias=False)
        self.head.weight = self.embedding.weight
        self.norm = torch.nn.BatchNorm1d(3)
        self.words = ["a"]


def test_a_copy_shares_weights_but_not_structure() -> None:
    model = Tied()
    copied = shared_copy(model)
    assert type(copied) is Tied
    assert not copied.training
    assert model.training
    for mine, theirs in zip(model.state_dict().values(), copied.state_dict().values()):
        assert mine.data_ptr() == theirs.data_ptr()
    copied.head = torch.nn.Linear(1, 1)
    copied.words.append("b")
    copied.norm.register_forward_hook(lambda *_: None)
    assert model.head.weight is model.embedding.weight
    assert model.words == ["a"]
    assert not model.norm._forward_hooks


def test_casting_copies_floating_weights_only() -> None:
    model = Tied()
    cast = shared_copy(model, torch.bfloat16)
    assert cast.head.weight.dtype is torch.bfloat16  # type: ignore[union-attr]
    assert cast.head.weight is cast.embedding.weight  # type: ignore[union-attr]
    assert cast.norm.running_mean.dtype is torch.bfloat16  # type: ignore[union-attr]
    assert cast.norm.num_batches_tracked.dtype is torch.long  # type: ignore[union-attr]
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_loaded_weights_reach_the_copy() -> None:
    model = MaskedEncoder.seeded()
    copied = shared_copy(model)
    model.load_state_dict(MaskedEncoder.seeded(1).state_dict())
    assert torch.equal(copied(torch.tensor([[1]]))[0], model(torch.tensor([[1]]))[0])


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_a_non_leaf_weight_is_shared() -> None:
    model = torch.nn.utils.weight_norm(torch.nn.Linear(2, 2))
    inputs = torch.ones(1, 2)
    assert torch.equal(shared_copy(model)(inputs), model(inputs))


def test_a_model_that_cannot_be_copied_is_named() -> None:
    model = torch.nn.Identity()
    model.lock = threading.Lock()  # type: ignore[assignment]
    with pytest.raises(ModelError, match=r"Identity can't be copied .*Pass inplace=True"):
        shared_copy(model)


class KeepsComputedWeights(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(4, 4)
        self.computed = {"doubled": [self.linear.weight * 2]}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(x, self.computed["doubled"][0])


def test_tensors_computed_from_weights_are_shared() -> None:
    model, x = KeepsComputedWeights(), torch.ones(2, 4)
    assert torch.equal(shared_copy(model)(x), model(x))
