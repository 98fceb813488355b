"""Models, inputs and arguments that a search takes or rejects."""

import pytest
import torch

import cpuaccel
from cpuaccel.building.settings import BuildSettings
from cpuaccel.tuning.request import Request, TuneArguments
from tests.tuning.conftest import Install
from tests.tuning.models import IDS, Waiting
from tests.tuning.results import rows


class Stacks(torch.nn.Module):
    """Takes a list of tensors, which no backend does."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(8, 4)

    def forward(self, xs: list[torch.Tensor]) -> torch.Tensor:
        output: torch.Tensor = self.linear(torch.stack(xs))
        return output


def test_inputs_that_are_lists_are_the_reason(install: Install) -> None:
    install("jit", "onednn")
    inputs = ([torch.randn(8), torch.randn(8)],)
    fast = cpuaccel.optimize(Stacks().eval(), "auto", example_inputs=inputs, budget=60)
    assert str(fast.report).splitlines() == [
        "pipeline  (no steps), dtype the model's own",
        "tuning    eager in its own precision: no candidate could be tried: none of the inputs is "
        "a tensor (2 of 2)",
        "rebuilt   the original model; input 'xs' is a list, neither a tensor nor a plain Python "
        "value",
    ]


def test_pickles_a_local_class(install: Install) -> None:
    install("jit")

    class Local(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(4, 4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(self.linear(x))

    fast = cpuaccel.optimize(
        Local(), "auto", example_inputs=torch.ones(2, 4), budget=500, time_limit=500
    )
    assert rows(fast)["jit"].speedup is not None


class Connection:
    """Can be copied, but not pickled."""

    def __deepcopy__(self, memo: object) -> "Connection":
        return self

    def __reduce__(self) -> str:
        raise TypeError("it holds a connection")


def test_rejects_a_model_that_cannot_be_pickled(install: Install) -> None:
    install("jit")
    model = Waiting()
    model.connection = Connection()
    with pytest.raises(cpuaccel.ModelError) as raised:
        cpuaccel.optimize(model, "auto", example_inputs=IDS)
    assert str(raised.value).startswith(
        "Waiting can't be pickled for the worker processes (TypeError: it holds a connection). "
    )


def test_arguments_as_code() -> None:
    assert Request.from_arguments(Waiting(), {"budget": 5, "target": "latency"}).code == ""
    arguments: TuneArguments = {
        "precisions": ["float32", "bfloat16"],
        "target": "throughput",
        "threads": 4,
        "traffic": {64: 1.0},
        "metric": lambda outputs: 1.0,
        "max_drop": 0.1,
    }
    settings = BuildSettings(tolerance=0.01)
    assert Request.from_arguments(Waiting(), arguments, settings).code == (
        "precisions=['float32', 'bfloat16'], target='throughput', traffic={64: 1.0}, threads=4, "
        "tolerance=0.01, metric=metric, max_drop=0.1"
    )
    generate = {"max_new_tokens": 8, "num_beams": 1}
    model = Waiting()
    model.generate = lambda: None
    code = Request.from_arguments(model, {"generate": generate}).code
    assert code == f"generate={generate}"  # without the defaults of a search


MISTAKES = {
    "example_inputs": ({"example_inputs": None}, "needs example_inputs"),
    "no batch": ({"example_inputs": []}, "example_inputs is an empty list"),
    "dtype": ({"dtype": "bfloat16"}, "Pass precisions="),
    "keep_original": (
        {"keep_original": False},
        "keep_original=False can't be used with",
    ),
    "precisions": ({"precisions": ["int3"]}, "dtype must be float32 or bfloat16"),
    "no precision": ({"precisions": []}, "precisions must not be empty"),
    "target": ({"target": "size"}, "target must be 'latency' or 'throughput', got 'size'"),
    "budget": ({"budget": 0}, "budget must be > 0, got 0"),
    "max_drop": ({"max_drop": 0.1}, "max_drop= needs metric="),
    "threads": ({"threads": "all"}, "threads must be a whole number >= 1 or 'auto', got 'all'"),
    "traffic": ({"traffic": {}}, "traffic must have lengths and shares > 0"),
    "traffic and batches": (
        {"traffic": {8: 1.0}, "example_inputs": [IDS, IDS]},
        "traffic= needs one batch, got 2",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_rejects_invalid_arguments(mistake: str) -> None:
    arguments, message = MISTAKES[mistake]
    with pytest.raises(cpuaccel.CpuaccelError) as raised:
        cpuaccel.optimize(Waiting(), "auto", **{"example_inputs": IDS, **arguments})  # type: ignore[arg-type]
    assert message in str(raised.value)


def test_rejects_search_arguments_with_a_pipeline() -> None:
    with pytest.raises(cpuaccel.CpuaccelError, match="budget= needs"):
        cpuaccel.optimize(Waiting(), ["jit"], budget=3)
