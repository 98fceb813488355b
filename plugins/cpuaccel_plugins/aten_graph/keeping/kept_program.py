"""A program as plain data and tensors, and made again of them.

The data names operators of torch, and functions and classes that a backend lists: nothing is
imported by a name from a file.
"""

import dataclasses
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MethodType

import torch
from torch.fx import Graph, Node

from cpuaccel import BackendError, Kept
from cpuaccel_plugins.aten_graph.compiled import CompiledGraph, FixedSizes
from cpuaccel_plugins.aten_graph.keeping.opaque_weights import (
    Opaque,
    can_restore,
    describe_opaque,
    memory_of,
    restore_opaque,
)
from cpuaccel_plugins.aten_graph.program import Program
from cpuaccel_plugins.aten_graph.size_cache import SizeCache

Data = object
"""What JSON can hold."""

_MODULES = {"_operator": operator, "math": math, "torch": torch}
_BUILTINS = {one.__name__: one for one in (getattr, min, max, int, float, bool, round)}


_UNREADABLE = (
    *(AssertionError, AttributeError, LookupError, StopIteration, TypeError),
    *(RuntimeError, ValueError),  # from torch
)
"""What reading data raises that is no graph."""


class UnknownValueError(Exception):
    """A graph has something that this module can't write; the message names it."""


@dataclass(frozen=True)
class Vocabulary:
    """Functions that a backend's graphs call, and dataclasses and named tuples as arguments."""

    functions: tuple[Callable[..., object], ...] = ()
    classes: tuple[type, ...] = ()

    def __add__(self, other: "Vocabulary") -> "Vocabulary":
        return Vocabulary(self.functions + other.functions, self.classes + other.classes)

    def function(self, name: str) -> Callable[..., object]:
        """Look up a function by the name that ``name_of`` has given it."""
        return next(one for one in self.functions if name_of(one) == name)


def name_of(function: Callable[..., object]) -> str:
    """The module and the name of a function."""
    return f"{function.__module__}:{function.__qualname__}"


def keep_program(program: Program, fixed: FixedSizes, vocabulary: Vocabulary) -> Callable[[], Kept]:
    """Describe a program; the result collects its tensors.

    Raises:
        UnknownValueError: the graph has something that has no description.
    """
    writer = _Writer(vocabulary)
    data = writer.program(program)
    sizes = {name: [*sizes] for name, sizes in fixed.items()}
    facts = {"program": data, "fixed_sizes": sizes, "tensors": writer.described}

    def keep() -> Kept:
        return Kept({name: _flat(one) for name, one in writer.tensors.items()}, facts)  # type: ignore[arg-type]

    return keep


def restore_program(kept: Kept, vocabulary: Vocabulary) -> CompiledGraph:
    """Compile the program again.

    Raises:
        BackendError: it was not written by ``keep_program`` of this version.
    """
    try:
        facts: Mapping[str, object] = kept.facts
        described, sizes = facts["tensors"], facts["fixed_sizes"]
        assert isinstance(described, Mapping)
        assert isinstance(sizes, Mapping)
        tensors = {name: _restored(one, kept.tensors[name]) for name, one in described.items()}
        program = _Reader(tensors, vocabulary).program(facts["program"])
        fixed = {name: tuple(one) for name, one in sizes.items()}
        return CompiledGraph(program, fixed, memory=[*kept.tensors.values()])
    except _UNREADABLE as error:
        raise BackendError(f"its graph can't be read ({error!r})"[:300], "Save it again") from error


def _flat(tensor: torch.Tensor) -> torch.Tensor:
    """The memory of a tensor, contiguous."""
    if tensor.is_mkldnn:
        return memory_of(tensor)
    tensor = tensor.detach()
    if tensor.is_contiguous():
        return tensor
    span = 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride()))
    return tensor.as_strided((span if tensor.numel() else 0,), (1,))


def _description(tensor: torch.Tensor) -> Data:
    if tensor.is_mkldnn:
        if not can_restore():
            raise UnknownValueError("a packed weight, which this torch can't map")
        weight = describe_opaque(tensor)
        return {"shape": [*weight.shape], "dtype": weight.dtype, "layout": weight.layout}
    if tensor.layout is not torch.strided or tensor.is_quantized:
        raise UnknownValueError(f"a tensor of layout {tensor.layout}")
    return {"shape": [*tensor.shape], "stride": [*tensor.stride()]}


def _restored(described: Data, memory: torch.Tensor) -> torch.Tensor:
    assert isinstance(described, Mapping)
    if "layout" in described:
        weight = Opaque(tuple(described["shape"]), described["dtype"], described["layout"])
        return restore_opaque(weight, memory)
    shape, stride = tuple(described["shape"]), tuple(described["stride"])
    if memory.shape == shape and memory.stride() == stride:
        return memory
    return memory.as_strided(shape, stride)  # checks the size of the memory


class _Writer:
    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self.tensors: dict[str, torch.Tensor] = {}
        self.described: dict[str, Data] = {}
        self._names: dict[int, str] = {}

    def program(self, program: Program) -> Data:
        places: dict[Node, int] = {}
        nodes: list[Data] = []
        for node in program.graph.nodes:
            nodes.append(self._node(program, node, places))
            places[node] = len(places)
        return nodes

    def _node(self, program: Program, node: Node, places: Mapping[Node, int]) -> Data:
        if node.op == "placeholder":
            return {"input": str(node.target)}
        if node.op == "get_attr":
            return {"tensor": self._tensor(program.tensors[str(node.target)])}
        arguments = [self._value(one, places) for one in node.args]
        if node.op == "output":
            return {"output": arguments[0]}
        assert node.op == "call_function"
        options = {name: self._value(one, places) for name, one in node.kwargs.items()}
        return {"call": self._target(node.target), "args": arguments, "kwargs": options}

    def _target(self, target: object) -> Data:
        if isinstance(target, torch._ops.OpOverload):
            return str(target)
        if isinstance(target, MethodType) and isinstance(target.__self__, SizeCache):
            return {"by_size": self.program(target.__self__.program)}
        name = getattr(target, "__name__", "")
        module = getattr(target, "__module__", "")
        if target in self._vocabulary.functions:
            return name_of(target)
        if _BUILTINS.get(name) is target:
            return f"builtins:{name}"
        if module in _MODULES and getattr(_MODULES[module], name, None) is target:
            return f"{module}:{name}"
        raise UnknownValueError(f"a call of {name or target}")

    def _value(self, value: object, places: Mapping[Node, int]) -> Data:
        if isinstance(value, Node):
            return {"node": places[value]}
        if isinstance(value, float) and not math.isfinite(value):
            return {"float": str(value)}
        if value is None or type(value) in (bool, int, float, str):
            return value
        if isinstance(value, torch.Tensor):
            return {"tensor": self._tensor(value)}
        if isinstance(value, (torch.dtype, torch.layout, torch.memory_format)):
            return {"torch": str(value).removeprefix("torch.")}
        if isinstance(value, torch.device):
            return {"device": str(value)}
        if type(value) in self._vocabulary.classes:
            members = _members(value)
            return {"class": name_of(type(value)), "members": self._values(members, places)}
        if isinstance(value, slice):
            return {"slice": self._values((value.start, value.stop, value.step), places)}
        if isinstance(value, list):
            return self._values(value, places)
        if isinstance(value, tuple):
            return {"tuple": self._values(value, places)}
        raise UnknownValueError(f"a {type(value).__name__} as an argument")

    def _values(self, values: Sequence[object], places: Mapping[Node, int]) -> list[Data]:
        return [self._value(one, places) for one in values]

    def _tensor(self, tensor: torch.Tensor) -> str:
        name = self._names.get(id(tensor))
        if name is None:
            name = self._names[id(tensor)] = str(len(self.tensors))
            self.tensors[name] = tensor
            self.described[name] = _description(tensor)
        return name


def _members(value: object) -> Sequence[object]:
    if isinstance(value, tuple):
        return value
    assert dataclasses.is_dataclass(value)
    return [getattr(value, field.name) for field in dataclasses.fields(value)]


class _Reader:
    def __init__(self, tensors: dict[str, torch.Tensor], vocabulary: Vocabulary) -> None:
        self._tensors = tensors
        self._vocabulary = vocabulary

    def program(self, data: Data) -> Program:
        assert isinstance(data, list)
        graph = Graph()
        nodes: list[Node] = []
        for one in data:
            assert isinstance(one, Mapping)
            if "input" in one:
                node = graph.placeholder(one["input"])
            elif "tensor" in one:
                node = graph.create_node("get_attr", one["tensor"])
            elif "output" in one:
                node = graph.output(self._value(one["output"], nodes))  # type: ignore[arg-type]
            else:
                arguments = tuple(self._value(argument, nodes) for argument in one["args"])
                options = {name: self._value(v, nodes) for name, v in one["kwargs"].items()}
                node = graph.call_function(self._target(one["call"]), arguments, options)  # type: ignore[arg-type]
            nodes.append(node)
        return Program(graph, self._tensors)

    def _target(self, target: Data) -> Callable[..., object]:
        if isinstance(target, Mapping):
            return SizeCache(self.program(target["by_size"])).tensors
        assert isinstance(target, str)
        module, _, name = target.partition(":")
        if not name:
            namespace, operator_name, overload = target.split(".")
            packet = getattr(getattr(torch.ops, namespace), operator_name)
            found: Callable[..., object] = getattr(packet, overload)
            return found
        if module == "builtins":
            return _BUILTINS[name]
        if module in _MODULES and not name.startswith("_"):
            function: Callable[..., object] = getattr(_MODULES[module], name)
            return function
        return self._vocabulary.function(target)

    def _value(self, data: Data, nodes: Sequence[Node]) -> object:
        if isinstance(data, list):
            return [self._value(one, nodes) for one in data]
        if not isinstance(data, Mapping):
            return data
        match data:
            case {"node": int(place)}:
                return nodes[place]
            case {"tensor": str(name)}:
                return self._tensors[name]
            case {"float": str(number)}:
                return float(number)
            case {"torch": str(name)}:
                return getattr(torch, name)
            case {"device": str(name)}:
                return torch.device(name)
            case {"slice": list(parts)}:
                return slice(*(self._value(one, nodes) for one in parts))
            case {"tuple": list(members)}:
                return tuple(self._value(one, nodes) for one in members)
            case {"class": str(name), "members": list(members)}:
                kind = next(one for one in self._vocabulary.classes if name_of(one) == name)
                return kind(*(self._value(one, nodes) for one in members))
        raise LookupError(f"no value {str(data)[:100]}")
