"""A symbolic run finds the sizes for which Python code takes the same path."""

import math
from collections.abc import Callable

import pytest
import torch
from torch.nn import functional

from cpuaccel.checks.axis_groups import AxisGroups
from cpuaccel.checks.size_guards import SizeGuards, find_size_guards
from cpuaccel.model.signature import Signature
from tests.required import requires

pytestmark = requires("torch>=2.1")

Forward = Callable[[torch.Tensor], object]


class Module(torch.nn.Module):
    def __init__(self, function: Forward) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> object:
        return self.function(x)


def guards_of(model: torch.nn.Module, **inputs: torch.Tensor) -> SizeGuards:
    signature = Signature.from_inputs(model, inputs)
    groups = AxisGroups.from_signature(signature)
    with torch.no_grad():
        guards = find_size_guards(model, signature._binder, groups, signature.inputs)
    assert guards is not None
    return guards


def admitted(function: Forward, *lengths: int) -> list[int]:
    """Return the lengths for which the code takes the path that it takes for 8."""
    guards = guards_of(Module(function), x=torch.ones(2, 8, 4))
    return [n for n in lengths if guards.violated({"batch": 2, "length": n, "x[2]": 4}) is None]


def branch(x: torch.Tensor) -> torch.Tensor:
    return x * 2 if x.shape[1] > 5 else x


def remainder(x: torch.Tensor) -> torch.Tensor:
    missing = (4 - x.shape[1] % 4) % 4
    return functional.pad(x, (0, 0, 0, missing)) if missing > 0 else x


def loop(x: torch.Tensor) -> torch.Tensor:
    return sum((x[:, i] for i in range(x.shape[1])), torch.zeros(2, 4))


def rounded(x: torch.Tensor) -> torch.Tensor:
    return x * 2 if math.ceil(x.shape[1] / 4) == 2 else x


def sliced(x: torch.Tensor) -> torch.Tensor:
    return x * 2 if x[:, :10].shape[1] == 10 else x


@pytest.mark.parametrize(
    ("function", "same"),
    [
        (branch, [6, 7, 8, 9, 11, 12]),
        (remainder, [8, 12]),
        (loop, [8]),
        (rounded, [5, 6, 7, 8]),
        (sliced, [2, 3, 5, 6, 7, 8, 9]),
        (lambda x: {"x": x, "tokens": x.shape[1]}, [8]),
        (lambda x: {"x": x, "long": x.shape[1] > 6}, [7, 8, 9, 11, 12]),
        (lambda x: x * (math.ceil(x.shape[1] / 4) / 3), [5, 6, 7, 8]),
        (lambda x: x * round(x.shape[1] / 4), [6, 7, 8, 9]),
        (lambda x: x * len(f"{x.shape[1]}"), [8]),
        (lambda x: x * len(repr(x.shape)), [8]),
        (lambda x: sum(part.mean() for part in x.unbind(1)), [8]),
        (lambda x: x.view(x.shape[0], -1).mean(1), [2, 3, 5, 6, 7, 8, 9, 11, 12]),
        (lambda x: x.softmax(1) @ x.transpose(1, 2), [2, 3, 5, 6, 7, 8, 9, 11, 12]),
    ],
)
def test_the_sizes_that_leave_the_path_as_it_is(function: Forward, same: list[int]) -> None:
    assert admitted(function, 2, 3, 5, 6, 7, 8, 9, 11, 12) == same


@pytest.mark.parametrize("kind", [torch.nn.GRU, torch.nn.RNN, torch.nn.LSTM])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_recurrent_layer_keeps_the_length(
    kind: type[torch.nn.RNNBase], bidirectional: bool
) -> None:
    layer = kind(4, 4, batch_first=True, bidirectional=bidirectional)

    def long(x: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = layer(x)[0]
        return output * 2 if output.shape[1] > 6 and output.shape[2] < 9 else output

    assert admitted(long, 2, 3, 5, 6, 7, 8, 9, 11, 12) == [7, 8, 9, 11, 12]


def test_a_guard_names_the_line() -> None:
    guards = guards_of(Module(branch), x=torch.ones(2, 8, 4))
    guard = guards.violated({"batch": 2, "length": 4, "x[2]": 4})
    assert guard is not None
    assert "test_size_guards.py" in guard.place
    assert "x.shape[1] > 5" in guard.place


def test_a_model_that_reads_values_has_no_guards() -> None:
    model = Module(lambda x: x * 2 if bool((x > 0).any()) else x)
    signature = Signature.from_inputs(model, {"x": torch.ones(2, 3)})
    groups = AxisGroups.from_signature(signature)
    assert find_size_guards(model, signature._binder, groups, signature.inputs) is None


def test_a_symbolic_run_leaves_the_model_as_it_was() -> None:
    class Keeping(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("state", torch.zeros(3))
            self.kept: torch.Tensor | None = None

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.kept = x
            assert isinstance(self.state, torch.Tensor)
            self.state.add_(1)
            return x + self.state

    model = Keeping()
    guards_of(model, x=torch.ones(2, 3))
    assert model.kept is None
    assert torch.equal(model.state, torch.zeros(3))  # type: ignore[arg-type]
