"""A model seen as engines see it: named tensors in, a flat tuple of tensors out."""

import inspect
from collections.abc import Mapping, Sequence

import torch

from cpuaccel.model.output import leaves, require_tensors
from cpuaccel.model.signature import Binder


class FlatModule(torch.nn.Module):
    """Base of the modules that ``flatten`` makes."""

    def __init__(
        self, model: torch.nn.Module, tensors: Sequence[str], constants: Mapping[str, object]
    ) -> None:
        super().__init__()
        self.model = model
        self._tensors = tuple(tensors)
        self._constants = dict(constants)
        self._binder = Binder(model)
        self.training = model.training

    def forward(self, *args: torch.Tensor, **kwargs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Call the model with the tensors and the constants; return its output's tensors."""
        inputs = self._binder.bind(
            (), {**self._constants, **dict(zip(self._tensors, args)), **kwargs}
        )
        output = self._binder.call(self.model, inputs)
        require_tensors(output)  # others would be lost
        flat = tuple(leaf.tensor for leaf in leaves(output))
        if torch._C._get_tracing_state() is None:
            return flat
        value_of = torch._C._get_value_trace  # type: ignore[attr-defined]
        return tuple(tensor for tensor in flat if not _is_size(value_of(tensor)))


_ARITHMETIC = {
    f"aten::{name}" for name in ("add", "sub", "mul", "div", "floor_divide", "remainder")
}


def _is_size(value: torch._C.Value) -> bool:
    """Whether a tensor of a trace is a Python number outside of it, computed from sizes."""
    node = value.node()
    if node.kind() == "prim::NumToTensor":
        return True
    if node.kind() not in _ARITHMETIC:
        return False
    operands = [v for v in node.inputs() if v.node().kind() != "prim::Constant"]
    return bool(operands) and all(map(_is_size, operands))


def flatten(
    model: torch.nn.Module, tensors: Sequence[str], constants: Mapping[str, object]
) -> FlatModule:
    """Wrap a model for tracers and exporters: tensors in, a flat tuple of tensors out.

    The wrapper's ``forward`` has exactly the parameters ``tensors``, in that order, without
    optional parameters between them: it can be called by position and by name.

    Args:
        model: an eager module, which is shared, not copied.
        tensors: names of the tensor inputs, in the order of the model's ``forward``.
        constants: values of other inputs, by name.

    Raises:
        BackendError: in a call: the output holds something else than tensors and constants.
    """

    class Flat(FlatModule):
        def forward(self, *args: torch.Tensor, **kwargs: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return super().forward(*args, **kwargs)

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    # Tracers take the names of the script's parameters from here.
    Flat.forward.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter(name, kind) for name in ("self", *tensors)]
    )
    return Flat(model, tensors, constants)
