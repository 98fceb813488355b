"""Reads of values by Python code are found, with their place."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from cpuaccel.checks.value_reads import ValueReads, as_captured
from tests.conftest import Python
from tests.required import ROOT, requires

Forward = Callable[[torch.Tensor], object]


def reads_of(function: Forward) -> ValueReads:
    x = torch.tensor([[1.0, -2.0, 3.0]])
    reads = ValueReads({"x": x})
    with torch.no_grad(), as_captured(), reads:
        function(x)
    return reads


def written(x: torch.Tensor) -> bool:
    kept = torch.zeros(3)
    kept[0] = x.sum()
    return bool(kept.any())


@pytest.mark.parametrize(
    "function",
    [
        lambda x: bool((x > 0).any()),
        lambda x: int(x.max()),
        lambda x: (x * 2).tolist(),
        lambda x: x.sum().item(),
        lambda x: torch.equal(x, x + 1),
        lambda x: torch.allclose(x, x + 1),
        lambda x: [x[0, i] for i in range(int(x.argmax()))],
        lambda x: float(torch.nn.functional.relu(x).mean()),
        lambda x: int(torch.where(x > 0, x, torch.zeros(())).sum()),
        lambda x: np.asarray(x),
        lambda x: torch.from_dlpack(x),
        lambda x: (x.untyped_storage if hasattr(x, "untyped_storage") else x.storage)(),
        lambda x: x * 2 if "-" in repr(x) else x,
        lambda x: f"{x}",
        lambda x: f"{x.sum():.1f}",
        lambda x: x.clone().apply_(abs),
        lambda x: torch.tensor([x.sum(), 1.0]),
        lambda x: torch.as_tensor([[x.sum()], [x.mean()]]),
        written,
    ],
)
def test_a_read_is_found_with_file_and_line(function: Forward) -> None:
    (place,) = set(reads_of(function).places)
    assert "test_value_reads.py" in place


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x * 2,
        lambda x: int(torch.zeros_like(x).sum()),
        lambda x: int(torch.arange(x.shape[1]).max()),
        lambda x: bool(torch.ones(x.shape[0]).all()),
        lambda x: int(x.new_ones(3).sum()),
        lambda x: x.masked_fill(x > 0, 0),
        lambda x: torch.tensor([x.shape[0], 2.0]),
        lambda x: x if torch.jit.is_tracing() else x[x > 0].tolist(),
    ],
)
def test_code_that_depends_on_sizes_only_reads_nothing(function: Forward) -> None:
    reads = reads_of(function)
    assert reads.places == []
    assert reads.sized == []


@pytest.mark.parametrize(
    "function", [lambda x: x[x > 0], lambda x: x.nonzero(), lambda x: torch.unique(x)]
)
def test_sizes_that_depend_on_values_are_found(function: Forward) -> None:
    reads = reads_of(function)
    assert reads.places == []
    assert len(reads.sized) == 1


def test_other_threads_are_not_captured() -> None:
    before, inside, leave = torch.jit.is_tracing, threading.Event(), threading.Event()

    def capture() -> bool:
        with as_captured():
            inside.set()
            leave.wait(30)
            return bool(torch.jit.is_tracing())

    with ThreadPoolExecutor(1) as pool:
        captured = pool.submit(capture)
        assert inside.wait(30)
        assert not torch.jit.is_tracing()
        with as_captured():
            leave.set()
            assert captured.result()
            assert torch.jit.is_tracing()
    assert torch.jit.is_tracing is before


STUDIED = """
import sys, torch, cpuaccel
from cpuaccel.testing import MaskedEncoder
from tests.fake_backends import Faithful, batch
from tests.conftest import Plugin
cpuaccel.plugin_host().register(Plugin(cpuaccel_backends=lambda: [Faithful]), "the test's")
fast = cpuaccel.optimize(MaskedEncoder.seeded(), ["faithful"], example_inputs=batch(), strict=True)
print("torch._dynamo" in sys.modules)
"""


def test_dynamo_is_not_imported(python: Python) -> None:
    """It takes a second, and only some backends need it."""
    assert python(STUDIED, path=(ROOT,)).stdout == "False\n"


@requires("torch>=2.6")
def test_a_compiled_part() -> None:
    """The code that follows the operators is not compiled into it."""
    graphs: list[torch.fx.GraphModule] = []

    def compiler(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> object:
        graphs.append(graph)
        return graph.forward

    def read(x: torch.Tensor) -> torch.Tensor:
        y = x + 1
        torch._dynamo.graph_break()
        return y * y.sum().item()

    part = torch.compile(read, backend=compiler)
    x = torch.ones(2, 3)
    with ValueReads({"x": x}) as reads:
        part(x)
    assert len(reads.places) == 1
    assert graphs == []
