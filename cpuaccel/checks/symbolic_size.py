"""Sizes that know how they were computed, and where Python code decided something by them."""

import math
import operator
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from cpuaccel.checks.code_place import TORCH, calling_place

Number = bool | int | float
Memo = dict[int, Number]

_INSIDE_OPERATORS = tuple(
    TORCH + path
    for path in (
        "_ops.py",
        "_meta_registrations.py",
        *(f"{f}{os.sep}" for f in ("_decomp", "_library", "_prims", "_prims_common", "_refs")),
        f"_subclasses{os.sep}",
    )
)
"""Operators mean the same for all sizes, whatever they decide inside."""

_CLAMPING = frozenset({"slice_forward", "_compute_slice_index"})
"""Functions that reduce a slice's end which is too large, on which the output's size depends."""

_MAGIC = tuple(
    os.sep.join(path)
    for path in (
        ("torch", "__init__.py"),
        ("experimental", "sym_node.py"),
        ("experimental", "symbolic_shapes.py"),
        ("checks", "symbolic_size.py"),
    )
)
"""Files with the methods of ``torch.SymInt`` and helpers that call them."""


class SymbolicSize:
    """The node of a ``torch.SymInt``, ``SymFloat`` or ``SymBool``: a number and its expression.

    torch calls its methods by their names. Its own class of nodes simplifies expressions, and
    guards what operators decide inside: that takes a minute for some models, and it fixes sizes
    that only a kernel's heuristic read.

    Attributes:
        value: the number in this run.
        guards: receives what Python code decides.
        function: computes the number from those of ``arguments``: one of the ``FUNCTIONS``, or a
            ``Rounding``. None for a size of the inputs and for a constant.
        arguments: see ``function``.
        name: the axis group whose size this is; empty for any other number.
    """

    constant = None
    fx_node = None
    free_symbols: frozenset[str] = frozenset()
    _hint = None

    def __init__(
        self,
        value: Number,
        guards: "list[Guard]",
        function: Callable[..., Number] | None = None,
        arguments: Sequence["SymbolicSize"] = (),
        name: str = "",
    ) -> None:
        self.value = value
        self.guards = guards
        self.expr = self  # what torch reads on its own nodes
        self.function = function
        self.arguments = arguments
        self.name = name

    def evaluate(self, sizes: Mapping[str, int], memo: Memo) -> Number:
        """Compute the number for other sizes of the inputs, by the names of axis groups."""
        if self.name:
            return sizes[self.name]
        if self.function is None:
            return self.value
        if id(self) not in memo:
            memo[id(self)] = self.function(*(a.evaluate(sizes, memo) for a in self.arguments))
        return memo[id(self)]

    def decide(self) -> Number:
        """Return the number to Python code, which may take another path for another one."""
        frame = sys._getframe(1)
        while frame.f_back is not None and frame.f_code.co_filename.endswith(_MAGIC):
            frame = frame.f_back
        file, code = frame.f_code.co_filename, frame.f_code.co_name
        if not file.startswith(_INSIDE_OPERATORS) or code in _CLAMPING:
            return self.fix()
        return self.value

    def fix(self) -> Number:
        """Return the number to code for which another one is another path."""
        self.guards.append(Guard(self, self.value, calling_place()))
        return self.value

    def rounded(self, name: str, *digits: int | None) -> "SymbolicSize":
        """Round the number. Tracers freeze the result, which is the same for several sizes."""
        rounded = self.derived(Rounding(name, digits))
        rounded.decide()
        return rounded

    def derived(self, function: Callable[..., Number], *others: "SymbolicSize") -> "SymbolicSize":
        """Return the result of a function of this number and others."""
        arguments = (self, *others)
        value = function(*(argument.value for argument in arguments))
        return SymbolicSize(value, self.guards, function, arguments)

    def fixed(self, value: Number) -> "SymbolicSize":
        """Return a constant."""
        return SymbolicSize(value, self.guards)


@dataclass(frozen=True)
class Rounding:
    """A function that rounds a number.

    Attributes:
        name: ``ceil``, ``floor``, ``trunc``, ``round`` or ``sym_int``.
        digits: for ``round``, as it was called.
    """

    name: str
    digits: tuple[int | None, ...] = ()

    def __call__(self, value: Number) -> Number:
        """Round a number."""
        return _ROUNDING[self.name](value, *self.digits)


@dataclass(frozen=True)
class Guard:
    """What Python code decided by sizes.

    Attributes:
        size: the number or comparison that it read.
        value: its value in the symbolic run.
        place: file, line and source.
    """

    size: SymbolicSize
    value: Number
    place: str

    def holds(self, sizes: Mapping[str, int], memo: Memo) -> bool:
        """Whether the code decides the same for other sizes."""
        try:
            return self.size.evaluate(sizes, memo) == self.value
        except (ArithmeticError, RecursionError, ValueError):
            return False


def _value(size: "int | torch.SymInt") -> int:
    return size if isinstance(size, int) else int(size.node.value)


def _is_contiguous(
    size: SymbolicSize,
    sizes: "Sequence[int | torch.SymInt]",
    strides: "Sequence[int | torch.SymInt]",
) -> SymbolicSize:
    expected = 1
    for length, stride in zip(map(_value, reversed(sizes)), map(_value, reversed(strides))):
        if length != 1 and stride != expected:
            return size.fixed(False)
        expected *= length
    return size.fixed(True)


def _no(size: SymbolicSize, *args: object) -> bool:
    return False


def _none(size: SymbolicSize, *args: object) -> None:
    return None


def _sum(*terms: Number) -> Number:
    return sum(terms)


def _constant(value: Number) -> Callable[..., SymbolicSize]:
    return lambda size, *args: size.fixed(value)


_BINARY: dict[str, Callable[..., Number]] = {
    **{name: getattr(operator, name) for name in ("add", "sub", "mul", "mod", "pow", "floordiv")},
    **{name: getattr(operator, name) for name in ("eq", "ne", "gt", "lt", "le", "ge")},
    **{name: getattr(operator, name) for name in ("truediv", "lshift", "rshift", "and_", "or_")},
    **dict.fromkeys(("int_truediv", "float_truediv"), operator.truediv),
    **dict.fromkeys(("pow_by_natural", "float_pow"), operator.pow),
    "int_floordiv": operator.floordiv,
    "bitwise_and": operator.and_,
    "bitwise_or": operator.or_,
    "sym_and": operator.and_,
    "sym_or": operator.or_,
    "sym_min": min,
    "sym_max": max,
}
_ROUNDING: dict[str, Callable[..., Number]] = {
    **{name: getattr(math, name) for name in ("ceil", "floor", "trunc")},
    "round": round,
    "sym_int": int,
}
_UNARY: dict[str, Callable[..., Number]] = {
    **{name: getattr(operator, name) for name in ("neg", "pos", "abs")},
    "sym_not": operator.not_,
    "sym_float": float,
    "sym_sqrt": math.sqrt,
    "sym_log2": math.log2,
}
FUNCTIONS: dict[str, Callable[..., Number]] = {**_BINARY, **_UNARY, "sym_sum": _sum}
"""Functions of numbers, by names under which they can be saved."""

_PROTOCOL: dict[str, Callable[..., object]] = {
    "is_int": lambda size: type(size.value) is int,
    "is_float": lambda size: type(size.value) is float,
    "is_bool": lambda size: type(size.value) is bool,
    "is_symbolic": lambda size: True,
    "has_hint": lambda size: True,
    "require_hint": lambda size, *fallback: size.value,
    **dict.fromkeys(("is_nested_int", "is_constant", "statically_known_true"), _no),
    **dict.fromkeys(("nested_int", "maybe_as_int", "maybe_as_float", "maybe_as_bool"), _none),
    "clone": lambda size: size,
    # Called by repr and str.
    **dict.fromkeys(("_graph_repr", "str"), lambda size: str(size.decide())),
    **dict.fromkeys(("wrap_int", "wrap_float", "wrap_bool"), SymbolicSize.fixed),
    # Called by torch.SymInt, SymFloat and SymBool for Python code.
    "bool_": lambda size: bool(size.decide()),
    "int_": lambda size: int(size.decide()),
    # Called by C++ code with the place in it, by Python code without one.
    # Of operators only few need an int, from which they make other sizes.
    "guard_int": lambda size, file, line: int(size.fix()),
    "guard_float": lambda size, file, line: float(size.value),
    **dict.fromkeys(
        ("guard_bool", "guard_or_false", "guard_or_true", "guard_size_oblivious", "expect_true"),
        lambda size, file, line: bool(size.value if file else size.decide()),
    ),
    "expect_size": lambda size, file, line: size.value >= 0,
    # Strides only choose kernels.
    "is_contiguous": _is_contiguous,
    "is_non_overlapping_and_dense": _constant(True),
    "is_non_overlapping_and_dense_indicator": _constant(1),
    **dict.fromkeys(
        (
            f"is_channels_last_{layout}_{dimensions}d"
            for layout in ("contiguous", "strides")
            for dimensions in (2, 3)
        ),
        _constant(False),
    ),
    "sym_ite": lambda size, yes, no: yes if size.decide() else no,
    "sym_sum": lambda size, sizes: sizes[0].derived(_sum, *sizes[1:]),
}


def _as_method(function: Callable[..., Number]) -> Callable[..., SymbolicSize]:
    return lambda size, *others: size.derived(function, *others)


def _as_rounding(name: str) -> Callable[..., SymbolicSize]:
    return lambda size, *digits: size.rounded(name, *digits)


for _name, _function in (_BINARY | _UNARY).items():
    setattr(SymbolicSize, _name, _as_method(_function))
for _name in _ROUNDING:
    setattr(SymbolicSize, _name, _as_rounding(_name))
for _name, _method in _PROTOCOL.items():
    setattr(SymbolicSize, _name, _method)
