"""Graphs as plain data and tensors: written to JSON, read, and compiled again."""

import json
import operator
from dataclasses import dataclass, replace

import pytest
import torch
from torch.fx import Graph, Node

import cpuaccel
from cpuaccel_plugins.aten_graph.compiled import CompiledGraph
from cpuaccel_plugins.aten_graph.keeping.kept_program import (
    UnknownValueError,
    Vocabulary,
    keep_program,
    restore_program,
)
from cpuaccel_plugins.aten_graph.keeping.opaque_weights import (
    describe_opaque,
    memory_of,
    restore_opaque,
)
from cpuaccel_plugins.aten_graph.nodes import aten
from cpuaccel_plugins.aten_graph.program import Program
from cpuaccel_plugins.aten_graph.size_cache import SizeCache
from tests.required import requires

mkldnn = torch.ops.mkldnn

X = torch.arange(24.0).view(2, 3, 4)


@dataclass(frozen=True)
class Factor:
    value: float
    offset: torch.Tensor


def scaled(x: torch.Tensor, factor: Factor) -> torch.Tensor:
    return x * factor.value + factor.offset


VOCABULARY = Vocabulary((scaled,), (Factor,))


def program(**tensors: torch.Tensor) -> tuple[Program, Node, dict[str, Node]]:
    graph = Graph()
    x = graph.placeholder("x")
    nodes = {name: graph.create_node("get_attr", name) for name in tensors}
    return Program(graph, dict(tensors)), x, nodes


def restored(made: Program) -> tuple[CompiledGraph, cpuaccel.Kept]:
    kept = keep_program(made, {}, VOCABULARY)()
    copied = {name: tensor.clone() for name, tensor in kept.tensors.items()}
    assert all(tensor.is_contiguous() for tensor in kept.tensors.values())
    kept = cpuaccel.Kept(copied, json.loads(json.dumps(kept.facts)))
    return restore_program(kept, VOCABULARY), kept


def assert_restored(made: Program) -> None:
    before, after = CompiledGraph(made, {})(x=X), restored(made)[0](x=X)
    assert len(after) == len(before)
    assert all(map(torch.equal, before, after))


def test_all_kinds_of_arguments() -> None:
    made, x, _ = program()
    call = made.graph.call_function
    results = [
        call(aten.reshape.default, (x, [2, -1])),
        call(operator.getitem, (x, (slice(0, 1), 2))),
        call(aten.clamp.default, (x,), {"max": float("inf"), "min": 3}),
        call(aten.to.dtype, (x, torch.bfloat16)),
        call(aten.clone.default, (x,), {"memory_format": torch.contiguous_format}),
        call(aten.zeros.default, ([2],), {"dtype": torch.int8, "device": torch.device("cpu")}),
        call(getattr, (x, "mT")),
        call(torch.add, (x, 1)),
        call(scaled, (x, Factor(2.5, torch.ones(4)))),
    ]
    made.graph.output(tuple(results))
    assert_restored(made)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.rand(4, 5),
        torch.rand(5, 4).t(),
        torch.ones(1).expand(4, 5),
        torch.rand(4, 9)[:, 2:7],
        torch.rand(3, 4, 5)[1],
        torch.ones(4, 5, dtype=torch.bfloat16).float(),
    ],
    ids=["contiguous", "transposed", "expanded", "sliced", "part", "cast"],
)
def test_tensors_of_any_strides(tensor: torch.Tensor) -> None:
    made, x, nodes = program(weight=tensor)
    made.graph.output((made.graph.call_function(aten.matmul.default, (x, nodes["weight"])),))
    assert_restored(made)
    again = restored(made)[1]
    assert sum(one.numel() for one in again.tensors.values()) <= 4 * 9


def test_what_depends_on_sizes_alone() -> None:
    inner = Graph()
    size = inner.placeholder("size_0")
    inner.output((inner.call_function(aten.arange.default, (size,)),))
    made, x, _ = program()
    length = made.graph.call_function(aten.sym_size.int, (x, 2))
    cached = made.graph.call_function(SizeCache(Program(inner, {})).tensors, (length,))
    made.graph.output((made.graph.call_function(operator.getitem, (cached, 0)),))
    assert_restored(made)


@pytest.mark.parametrize(
    "dtype",
    [torch.float32, pytest.param(torch.bfloat16, marks=requires("flag: avx512bw avx_ne_convert"))],
)
def test_packed_weights_are_read_where_they_are(dtype: torch.dtype) -> None:
    weight = torch.rand(64, 4).to(dtype)
    made, x, nodes = program(weight=mkldnn._reorder_linear_weight(weight))
    graph = made.graph
    cast = graph.call_function(aten.to.dtype, (x, dtype))
    arguments = (cast, nodes["weight"], None, "none", [], "")
    graph.output((graph.call_function(mkldnn._linear_pointwise.default, arguments),))
    assert_restored(made)
    again, kept = restored(made)
    (memory,) = kept.tensors.values()
    bound = again._run.__globals__.values()
    (packed,) = (one for one in bound if isinstance(one, torch.Tensor))
    assert mkldnn.data_ptr(packed) == memory.data_ptr()
    assert torch.equal(packed.to_dense(), weight)
    with pytest.raises(cpuaccel.BackendError, match="must have"):
        restore_program(
            replace(kept, tensors={name: one[:-64] for name, one in kept.tensors.items()}),
            VOCABULARY,
        )


def test_a_function_that_is_not_listed_is_not_written() -> None:
    made, x, _ = program()
    made.graph.output((made.graph.call_function(print, (x,)),))
    with pytest.raises(UnknownValueError, match="print"):
        keep_program(made, {}, VOCABULARY)


@pytest.mark.parametrize(
    "program",
    [
        None,
        [3],
        [{}],
        [{"call": "os:system", "args": ["true"], "kwargs": {}}],
        [{"call": "builtins:exec", "args": ["true"], "kwargs": {}}],
        [{"call": "torch:_C", "args": [], "kwargs": {}}],
        [{"call": "aten.add", "args": [], "kwargs": {}}],
        [{"output": {"node": 0}}],
        [{"output": {"class": "os:PathLike", "members": []}}],
        [{"output": {"lambda": 1}}],
    ],
    ids=str,
)
def test_data_that_is_no_graph_is_refused(program: object) -> None:
    facts: dict[str, object] = {"program": program, "fixed_sizes": {}, "tensors": {}}
    with pytest.raises(cpuaccel.BackendError, match="can't be read"):
        restore_program(cpuaccel.Kept({}, facts), VOCABULARY)  # type: ignore[arg-type]


def test_a_layout_that_torch_does_not_know_is_refused() -> None:
    weight = mkldnn._reorder_linear_weight(torch.rand(64, 64))
    described = describe_opaque(weight)
    shorter = replace(described, layout=described.layout[:8])
    with pytest.raises(cpuaccel.BackendError):
        restore_opaque(shorter, memory_of(weight))
