"""A graph as a Python function: one line a node, operators bound as globals, memory freed early."""

import math
from collections.abc import Callable, Mapping
from typing import TypeAlias

import torch
from torch.fx import Node

from cpuaccel_plugins.aten_graph.nodes import aten, is_call
from cpuaccel_plugins.aten_graph.program import Program

Run: TypeAlias = Callable[..., tuple[torch.Tensor, ...]]

_LITERALS = (bool, int, float, str, type(None))

_DIRECT: Mapping[object, Callable[..., object]] = {
    aten.add.Tensor: torch.add,
    aten.sub.Tensor: torch.sub,
    aten.mul.Tensor: torch.mul,
    aten.div.Tensor: torch.div,
    aten.linear.default: torch.nn.functional.linear,
    aten.matmul.default: torch.matmul,
    aten.softmax.int: torch.softmax,
    aten.reshape.default: torch.reshape,
    aten.transpose.int: torch.transpose,
    aten.permute.default: torch.permute,
    aten.unsqueeze.default: torch.unsqueeze,
    aten.squeeze.dim: torch.squeeze,
    aten.split_with_sizes.default: torch.split_with_sizes,
    aten.layer_norm.default: torch.layer_norm,
    aten.embedding.default: torch.embedding,
    aten.gelu.default: torch.nn.functional.gelu,
    aten.relu.default: torch.relu,
    aten.tanh.default: torch.tanh,
    aten.sigmoid.default: torch.sigmoid,
}
"""Torch's own functions of the same positional arguments: they take a third to a half of the time
of dispatch through ``torch.ops``, which is most of the cost of views between two linears."""


def compile_program(program: Program) -> Run:
    """Compile to a function of the input tensors by name, without attribute lookups in a call."""
    return _Writer(program).compile()


class _Writer:
    def __init__(self, program: Program) -> None:
        self._program = program
        self._names: dict[Node, str] = {}
        self._bound: dict[str, object] = {}
        self._bound_names: dict[int, str] = {}
        self._lines: list[str] = []

    def compile(self) -> Run:
        nodes = list(self._program.graph.nodes)
        last_uses: dict[Node, list[Node]] = {}
        seen: set[Node] = set()
        for node in reversed(nodes):
            for used in node.all_input_nodes:
                if used not in seen:
                    seen.add(used)
                    last_uses.setdefault(node, []).append(used)
        parameters: list[str] = []
        for number, node in enumerate(nodes):
            if node.op == "placeholder":
                self._names[node] = str(node.target)
                parameters.append(str(node.target))
            elif node.op == "get_attr":
                tensor = self._program.tensors[str(node.target)]
                self._names[node] = self._bind(tensor, f"_t{number}")
            elif node.op == "output":
                self._lines.append(f"return {self._text(tuple(node.args[0]))}")
            else:
                self._names[node] = f"_v{number}"
                self._lines.append(f"_v{number} = {self._call(node)}")
                freed = [self._names[n] for n in last_uses.get(node, []) if n.op == "call_function"]
                if not node.users:
                    freed.append(f"_v{number}")
                if freed:
                    self._lines.append(f"del {', '.join(freed)}")
        body = "\n    ".join(self._lines)
        source = f"def run({', '.join(parameters)}):\n    {body}\n"
        exec(compile(source, "<aten graph>", "exec"), self._bound)  # noqa: S102
        run: Run = self._bound["run"]  # type: ignore[assignment]
        return run

    def _call(self, node: Node) -> str:
        if is_call(node, aten.sym_size.int):
            return f"{self._text(node.args[0])}.size({self._text(node.args[1])})"
        target = node.target
        name = getattr(target, "__name__", "f").replace(".", "_").strip("<>")
        # Calling the overload itself would only add a Python frame around its "_op".
        function = self._bind(_DIRECT.get(target, getattr(target, "_op", target)), f"_f_{name}")
        arguments = [self._text(argument) for argument in node.args]
        arguments += [f"{key}={self._text(argument)}" for key, argument in node.kwargs.items()]
        return f"{function}({', '.join(arguments)})"

    def _text(self, argument: object) -> str:
        if isinstance(argument, Node):
            return self._names[argument]
        if isinstance(argument, (list, tuple)):
            inside = "".join(f"{self._text(member)}, " for member in argument)
            return f"[{inside}]" if isinstance(argument, list) else f"({inside})"
        if isinstance(argument, slice):
            parts = (argument.start, argument.stop, argument.step)
            return f"slice({', '.join(map(self._text, parts))})"
        finite = not isinstance(argument, float) or math.isfinite(argument)
        if finite and isinstance(argument, _LITERALS):  # there is no literal for infinity
            return repr(argument)
        return self._bind(argument, "_c")

    def _bind(self, thing: object, name: str) -> str:
        """The global name of an object, always the same one."""
        bound = self._bound_names.get(id(thing))
        if bound is None:
            bound = name
            while bound in self._bound:
                bound = f"{name}_{len(self._bound)}"
            self._bound[bound] = thing
            self._bound_names[id(thing)] = bound
        return bound
