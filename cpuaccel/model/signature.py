"""How a model is called: its parameters, and example inputs bound to them."""

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import torch

from cpuaccel.errors import SignatureError
from cpuaccel.model.precision import dtype_name

Inputs = dict[str, object]
"""One call's arguments by parameter name, in ``forward``'s own order."""

ExampleInputs = Mapping[str, object] | Sequence[object] | torch.Tensor
"""Example inputs as users pass them: a batch by name, positional arguments, or one tensor."""

MASK = "attention_mask"
"""Name of the padding mask: 1 for real tokens, 0 for padding."""

SOURCE_PADDING = "src_key_padding_mask"
"""Name of the padding mask of torch's encoders: false or 0 for real tokens, true or -inf else."""


@dataclass(frozen=True)
class Axes:
    """Which axes of which inputs vary together with the batch size or the length.

    Attributes:
        batch: names of the inputs whose axis 0 is the batch.
        length: names of the inputs whose axis 1 is the sequence length.
    """

    batch: tuple[str, ...]
    length: tuple[str, ...]

    @classmethod
    def from_inputs(cls, inputs: Mapping[str, object]) -> "Axes":
        """Infer the axes from shapes: those that agree with the first tensor's axes 0 and 1.

        Whether the model allows an axis to vary is only known after calling it.
        """
        tensors = {name: t for name, t in tensors_of(inputs).items() if is_dense(t)}
        agreeing: list[tuple[str, ...]] = []
        for axis in (0, 1):
            size = next((t.shape[axis] for t in tensors.values() if t.dim() > axis), None)
            agreeing.append(
                tuple(n for n, t in tensors.items() if t.dim() > axis and t.shape[axis] == size)
            )
        return cls(*agreeing)


class Signature:
    """A model's ``forward`` and one call of it.

    Attributes:
        parameters: ``forward``'s parameters by name, in order.
        inputs: the example inputs by name, in ``forward``'s order.
        tensor_inputs: the inputs that are tensors.
        tensors: names of the tensor inputs.
        constants: the other inputs: Python values that an engine may freeze.
        axes: which axes may vary.
        masked: whether a padding mask is among the inputs.
    """

    def __init__(self, binder: "Binder", inputs: Inputs) -> None:
        self._binder = binder
        self.inputs = inputs
        self.parameters = binder.parameters
        self.tensor_inputs = tensors_of(inputs)
        self.tensors = tuple(self.tensor_inputs)
        self.constants = {k: v for k, v in inputs.items() if k not in self.tensors}
        self.axes = Axes.from_inputs(inputs)
        self.masked = real_tokens(inputs) is not None

    @classmethod
    def from_inputs(
        cls, model: Callable[..., object], example_inputs: ExampleInputs
    ) -> "Signature":
        """Bind copies of example inputs to the model's parameters, or raise ``SignatureError``."""
        binder = Binder(model)
        return cls(binder, cloned(binder.bind_example(example_inputs)))

    def cast(self, dtype: torch.dtype) -> "Signature":
        """Return the signature with floating-point inputs in another precision."""
        return Signature(self._binder, cast_floating(self.inputs, dtype))

    def copied(self) -> "Signature":
        """Return the signature with copies of its inputs, which may be written to."""
        return Signature(self._binder, cloned(self.inputs))

    def call(self, model: Callable[..., object], inputs: Mapping[str, object]) -> object:
        """Call the model with inputs by name."""
        return self._binder.call(model, inputs)

    def __str__(self) -> str:
        described = [
            f"{name}: {dtype_name(value.dtype)}{list(value.shape)}"
            if isinstance(value, torch.Tensor)
            else f"{name}={value!r}"
            for name, value in self.inputs.items()
        ]
        return ", ".join(described)


class Binder:
    """Binds a call's arguments to parameters, cheaply enough for every call."""

    def __init__(self, model: Callable[..., object]) -> None:
        forward = model.forward if isinstance(model, torch.nn.Module) else model
        try:
            parameters = dict(inspect.signature(forward).parameters)
        except (TypeError, ValueError) as error:
            raise SignatureError(
                f"the parameters of {type(model).__name__}.forward can't be read: {error}. "
                "Wrap the model in an nn.Module whose forward names its parameters"
            ) from None
        kinds = {p.kind: n for n, p in parameters.items()}
        self._variadic = kinds.get(inspect.Parameter.VAR_POSITIONAL)
        self._keywords = kinds.get(inspect.Parameter.VAR_KEYWORD)
        variable = (self._variadic, self._keywords)
        self.parameters = {n: p for n, p in parameters.items() if n not in variable}
        named = self.parameters.items()
        self._positional_only = tuple(n for n, p in named if p.kind is p.POSITIONAL_ONLY)
        self._positional = tuple(n for n, p in named if p.kind is not p.KEYWORD_ONLY)
        self._droppable = {n for n, p in named if p.default is None}
        self._order = {name: index for index, name in enumerate(self.parameters)}
        self._ordered: dict[tuple[str, ...], tuple[str, ...]] = {}  # cache: sorting takes 1 us
        # Any other forward is called by name, which needs no work in each call.
        self._by_position = bool(self._positional_only) or self._variadic is not None

    def bind(self, args: Sequence[object], kwargs: Mapping[str, object]) -> Inputs:
        """Name all arguments and put them into ``forward``'s order.

        None is dropped where it is the parameter's default.

        Raises:
            SignatureError: an argument has no parameter, or is passed twice.
        """
        if args:
            inputs = dict(zip(self._positional, args))
            surplus = args[len(self._positional) :]
            if surplus:
                if self._variadic is None:
                    raise SignatureError(
                        f"forward takes {len(self._positional)} positional inputs "
                        f"({', '.join(self._positional)}), got {len(args)}"
                    )
                inputs.update({f"{self._variadic}_{i}": v for i, v in enumerate(surplus)})
            if twice := inputs.keys() & kwargs.keys():
                raise SignatureError(
                    f"input {sorted(twice)[0]!r} is passed by position and by name. Pass it once"
                )
            inputs.update(kwargs)
        else:
            inputs = dict(kwargs)
        names = tuple(inputs)
        ordered = self._ordered.get(names)
        if ordered is None:
            last = len(self._order)
            ordered = tuple(sorted(names, key=lambda name: self._order.get(name, last)))
            self._ordered[names] = ordered
        if ordered != names:
            inputs = {name: inputs[name] for name in ordered}
        if any(value is None for value in inputs.values()):  # `in` would compare tensors
            inputs = {k: v for k, v in inputs.items() if v is not None or k not in self._droppable}
        return inputs

    def bind_example(self, example_inputs: ExampleInputs) -> Inputs:
        """Bind example inputs and check that ``forward`` can be called with them."""
        if isinstance(example_inputs, torch.Tensor):
            inputs = self.bind((example_inputs,), {})
        elif isinstance(example_inputs, Mapping):
            inputs = self.bind((), {str(k): v for k, v in example_inputs.items()})
        elif isinstance(example_inputs, Sequence) and not isinstance(example_inputs, str):
            inputs = self.bind(tuple(example_inputs), {})
        else:
            raise SignatureError(
                f"example_inputs is a {type(example_inputs).__name__}. Pass a mapping by parameter "
                "name, a tuple of positional inputs, or one tensor"
            )
        self.check(inputs)
        return inputs

    def check(self, inputs: Mapping[str, object]) -> None:
        """Check that ``forward`` takes exactly these names, apart from optional parameters."""
        unknown = [n for n in inputs if n not in self.parameters and not self._is_surplus(n)]
        if unknown and self._keywords is None:
            raise SignatureError(
                f"input {unknown[0]!r} is not a parameter of forward, which takes "
                f"{', '.join(self.parameters)}. Rename or remove it"
            )
        for name, parameter in self.parameters.items():
            if parameter.default is inspect.Parameter.empty and name not in inputs:
                raise SignatureError(
                    f"forward requires {name!r}, which is missing from the inputs: "
                    f"{', '.join(inputs) or 'none'}. Add it"
                )

    def call(self, model: Callable[..., object], inputs: Mapping[str, object]) -> object:
        """Call a model with bound inputs."""
        if not self._by_position:
            return model(**inputs)
        surplus = [name for name in inputs if self._is_surplus(name)]
        first = self._positional if surplus else self._positional_only
        if not surplus:  # torch.compile captures this: no max() of a generator
            given = [index for index, name in enumerate(first) if name in inputs]
            first = first[: given[-1] + 1] if given else ()
        args = []
        for name in first:  # an omitted one may precede others that are passed
            value = inputs.get(name, self.parameters[name].default)
            if value is inspect.Parameter.empty:
                break  # the model raises the best error
            args.append(value)
        passed = {*first[: len(args)], *surplus}
        named = {name: value for name, value in inputs.items() if name not in passed}
        return model(*args, *(inputs[name] for name in surplus), **named)

    def _is_surplus(self, name: str) -> bool:
        """Whether ``bind`` made this name, for one of the values of ``*args``."""
        prefix, _, number = name.rpartition("_")
        return prefix == self._variadic and number.isdigit() and name not in self.parameters


_PLAIN = (bool, int, float, str, type(None), torch.dtype)


def is_dense(tensor: torch.Tensor) -> bool:
    """Whether a tensor has one size along each axis, and all its elements: not nested or sparse."""
    return tensor.layout is torch.strided and not tensor.is_nested


def is_plain(value: object) -> bool:
    """Whether a Python value can be part of a way of calling."""
    return isinstance(value, _PLAIN)


def unsupported_input(inputs: Mapping[str, object]) -> str:
    """Describe the first input for which no variant can be built; empty if there is none."""
    for name, value in inputs.items():
        if isinstance(value, torch.Tensor):
            if not is_dense(value):
                return f"input {name!r} is a nested or sparse tensor"
        elif not is_plain(value):
            kind = type(value).__name__
            return f"input {name!r} is a {kind}, neither a tensor nor a plain Python value"
    return ""


def tensors_of(inputs: Mapping[str, object]) -> dict[str, torch.Tensor]:
    """Return the inputs that are tensors."""
    return {n: value for n, value in inputs.items() if isinstance(value, torch.Tensor)}


def real_tokens(inputs: Mapping[str, object]) -> torch.Tensor | None:
    """Return a mask of axes 0 and 1 that is true for real tokens; None without a padding mask."""
    mask = inputs.get(MASK)
    if mask is None and "tgt" not in inputs:  # with a target, the output has the target's tokens
        mask = inputs.get(SOURCE_PADDING)
        if isinstance(mask, torch.Tensor):
            # Without batch_first the batch is axis 1: a square mask may be for either order.
            mask = None if mask.shape[:1] == mask.shape[1:] else mask == 0
    return mask.bool() if isinstance(mask, torch.Tensor) and mask.dim() == 2 else None


def with_real_tokens(inputs: Mapping[str, object], real: torch.Tensor) -> Inputs:
    """Return the padding mask by its name, with padding wherever ``real`` is false."""
    name = MASK if MASK in inputs else SOURCE_PADDING
    mask = tensors_of(inputs)[name]
    if name == MASK:
        padding: float = 0
    else:
        padding = float("-inf") if mask.is_floating_point() else 1
    return {name: mask.masked_fill(~real, padding)}


def numbers_as_tensors(inputs: Inputs, names: Collection[str]) -> Inputs:
    """Return the inputs with some Python numbers as tensors of no dimension.

    In float64 a value stays exact, and combined with another tensor it takes that one's dtype.
    """
    dtypes = {int: torch.int64, float: torch.float64}
    return {
        name: torch.tensor(value, dtype=dtypes[type(value)]) if name in names else value
        for name, value in inputs.items()
    }


def cast_floating(inputs: Mapping[str, object], dtype: torch.dtype) -> Inputs:
    """Return the inputs with floating-point tensors in another precision."""
    return {
        name: value.to(dtype)
        if isinstance(value, torch.Tensor) and value.is_floating_point()
        else value
        for name, value in inputs.items()
    }


def cloned(inputs: Mapping[str, object]) -> Inputs:
    """Return the inputs with copies of their tensors, which may be written to."""
    return {
        name: value.clone() if isinstance(value, torch.Tensor) else value
        for name, value in inputs.items()
    }


def counted_tensors(inputs: Mapping[str, object]) -> list[torch.Tensor]:
    """Return the inputs of which torch counts in-place operations."""
    return [
        value
        for value in inputs.values()
        if isinstance(value, torch.Tensor) and not value.is_inference()
    ]
