import copy
from collections.abc import Callable

import pytest
import torch

from cpuaccel.model.weights import WatchedWeights


def model() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.BatchNorm1d(3)).eval()


def step(changed: torch.nn.Module) -> None:
    optimizer = torch.optim.SGD(changed.parameters(), lr=0.1)
    changed(torch.ones(2, 3)).sum().backward()
    optimizer.step()


def train(changed: torch.nn.Module) -> None:
    changed.train()(torch.ones(2, 3))  # updates the batch norm's averages


@pytest.mark.parametrize(
    "change",
    [
        step,
        train,
        lambda changed: changed.load_state_dict(copy.deepcopy(changed.state_dict())),
        lambda changed: changed.to(torch.bfloat16),
        lambda changed: setattr(changed[0], "weight", torch.nn.Parameter(torch.ones(3, 3))),
        lambda changed: setattr(
            changed[1], "num_batches_tracked", changed[1].num_batches_tracked.clone()
        ),
        lambda changed: changed.add_module("more", torch.nn.Identity()),
        lambda changed: changed.__setitem__(1, torch.nn.Identity()),
        lambda changed: changed._modules.update({"0": changed._modules.pop("0")}),
        lambda changed: changed[0].register_parameter("bias", None),
        lambda changed: changed.__delitem__(1),
    ],
    ids=[
        "optimizer step",
        "buffers",
        "load_state_dict",
        "cast",
        "replaced",
        "equal buffer replaced",
        "module added",
        "module replaced",
        "modules reordered",
        "parameter removed",
        "module removed",
    ],
)
def test_a_change_is_detected(change: Callable[[torch.nn.Module], object]) -> None:
    changed = model()
    weights = WatchedWeights(changed)
    change(changed)
    assert weights.changed()


def test_inference_changes_nothing() -> None:
    unchanged = model()
    weights = WatchedWeights(unchanged)
    with torch.no_grad():
        unchanged(torch.ones(2, 3))
    unchanged.to(torch.float32)
    assert not weights.changed()


def test_inference_tensors_are_watched() -> None:
    with torch.inference_mode():
        made = model()
    weights = WatchedWeights(made)
    assert not weights.changed()
    made[0].weight = torch.nn.Parameter(torch.ones(3, 3))  # type: ignore[index,assignment]
    assert weights.changed()


def test_a_buffer_added_to_a_module_without_any_is_detected() -> None:
    class Empty(torch.nn.Module):
        pass

    changed = torch.nn.Sequential(Empty())
    weights = WatchedWeights(changed)
    changed[0].register_buffer("scale", torch.ones(1))
    assert weights.changed()
