"""Finding where a model's Python code reads values that were computed from its inputs."""

import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from cpuaccel.checks.code_place import calling_place

READS = {
    "aten::_local_scalar_dense",
    "aten::equal",
    "aten::allclose",
    "aten::is_nonzero",
    "aten::_nnz",
    "aten::_choose_qparams_per_tensor",
    "aten::_nested_tensor_from_mask_left_aligned",
}
"""Operators that return a Python number made from a tensor's values."""

SIZED_BY_VALUES = {
    "aten::nonzero",
    "aten::masked_select",
    "aten::_unique",
    "aten::_unique2",
    "aten::unique_dim",
    "aten::unique_consecutive",
    "aten::repeat_interleave",
    "aten::bincount",
}
"""Operators whose output's size depends on values; so does that of an index with booleans."""

_READING_METHODS = tuple(
    getattr(torch.Tensor, name)
    for name in (
        *("tolist", "numpy", "apply_", "map_", "storage", "untyped_storage"),
        *("__array__", "__dlpack__", "__repr__", "__format__"),
    )
    if hasattr(torch.Tensor, name)  # untyped_storage: from torch 2.0 on
)
"""Methods that pass values to code which no operator shows."""

_READING_LISTS = (torch.tensor, torch.as_tensor, torch.asarray)
"""Functions that read the numbers of a list, which may be tensors."""

_MARK = "_cpuaccel_from_inputs"


_torch_is_tracing = torch.jit.is_tracing
_thread = threading.local()
_lock = threading.Lock()
_capturing = 0
"""Number of threads in ``as_captured``: the last one restores torch's function."""


def _is_tracing() -> bool:
    # Other threads may call models, which must not take the path of this one.
    return getattr(_thread, "captured", False) or _torch_is_tracing()  # type: ignore[no-untyped-call]


class _MethodReads(TorchFunctionMode):
    """Notes functions that read values without any operator."""

    def __init__(self, places: list[str]) -> None:
        self._places = places

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        """Call a function; note it if it reads values."""
        lists = func in _READING_LISTS and not isinstance(args[0], torch.Tensor)
        if (lists or func in _READING_METHODS) and any(map(_is_marked, _tensors(args))):
            _note(self._places)
        return func(*args, **(kwargs or {}))


class ValueReads(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows what is computed from the values of the inputs, and notes where Python reads it.

    A captured graph has the branch, loop or number that such a read led to for the example, and
    returns wrong outputs for other values. Tensors that depend on sizes only are not followed.

    Attributes:
        places: file, line and source of each read.
        sized: the same for each operator whose output's size depends on values.
        output: the model's output, once it has run.
    """

    output: object = None

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # For True, torch imports Dynamo at the first operator, which takes a second.
        return False

    def __init__(self, inputs: Mapping[str, object]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        if "torch._dynamo" in sys.modules:  # a model's compiled part would compile this code, too
            self._run = torch.compiler.disable(self._run)  # type: ignore[method-assign, no-untyped-call]
        self.places: list[str] = []
        self.sized: list[str] = []
        self._methods = _MethodReads(self.places)
        for value in inputs.values():
            if isinstance(value, torch.Tensor):
                _mark(value)

    def __enter__(self) -> "ValueReads":
        """Start to follow values."""
        self._methods.__enter__()  # type: ignore[no-untyped-call]
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: object) -> None:
        """Stop following values."""
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        self._methods.__exit__(*error)  # type: ignore[no-untyped-call]

    def __torch_dispatch__(
        self,
        func: torch._ops.OpOverload,
        types: Sequence[type],
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        """Run an operator; note it if it reads values, and mark its output if it passes them on."""
        return self._run(func, args, kwargs or {})

    def _run(
        self, func: torch._ops.OpOverload, args: Sequence[object], kwargs: Mapping[str, object]
    ) -> object:
        schema = func._schema
        used = [t for t in _tensors((*args, *kwargs.values())) if _is_marked(t)]
        if used:
            if schema.name in READS:
                _note(self.places)
            elif schema.name in SIZED_BY_VALUES or _has_boolean_index(schema.name, args):
                _note(self.sized)
        output = func(*args, **kwargs)
        if used and not _ignores_values(schema.name):
            for tensor in _tensors((output,)):
                _mark(tensor)
            for argument, value in zip(schema.arguments, args):
                if argument.alias_info is not None and argument.alias_info.is_write:
                    for tensor in _tensors((value,)):
                        _mark(tensor)
        return output


@contextmanager
def as_captured() -> Iterator[None]:
    """Let the model take the path that it takes while it is traced.

    Models leave out checks of values then, such as whether a mask has any padding.
    """
    global _capturing
    with _lock:
        _capturing += 1
        torch.jit.is_tracing = _is_tracing
    _thread.captured = True
    try:
        yield
    finally:
        _thread.captured = False
        with _lock:
            _capturing -= 1
            if not _capturing:
                torch.jit.is_tracing = _torch_is_tracing


def _note(places: list[str]) -> None:
    place = calling_place()
    if place not in places:
        places.append(place)


def _tensors(values: Sequence[object]) -> Iterator[torch.Tensor]:
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, (tuple, list)):
            yield from _tensors(value)


def _mark(tensor: torch.Tensor) -> None:
    setattr(tensor, _MARK, True)
    if tensor._base is not None:  # a view that was written to
        setattr(tensor._base, _MARK, True)


def _is_marked(tensor: torch.Tensor) -> bool:
    return hasattr(tensor, _MARK) or (tensor._base is not None and hasattr(tensor._base, _MARK))


def _ignores_values(operator: str) -> bool:
    name = operator.rpartition("::")[2]
    return name.endswith("_like") or name.startswith(("new_", "sym_", "empty"))


def _has_boolean_index(operator: str, args: Sequence[object]) -> bool:
    indices = args[1] if operator == "aten::index" and len(args) > 1 else ()
    return isinstance(indices, (tuple, list)) and any(
        isinstance(index, torch.Tensor) and index.dtype in (torch.bool, torch.uint8)
        for index in indices
    )
