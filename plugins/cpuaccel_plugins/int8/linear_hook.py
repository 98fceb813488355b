"""A hook on the linears that a model computes in eager mode."""

from collections.abc import Callable, Mapping

import torch
from torch.nn.functional import linear
from torch.overrides import TorchFunctionMode

Hook = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor | None]
"""Takes input, weight and bias of a linear; returns its result, or None to compute it as usual."""


class LinearHook(TorchFunctionMode):
    """Calls a hook for each ``torch.nn.functional.linear`` while the context is active."""

    def __init__(self, hook: Hook) -> None:
        super().__init__()
        self._hook = hook

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        if func is linear:
            inputs, weight, bias = (*args, None)[:3]
            assert isinstance(inputs, torch.Tensor)
            assert isinstance(weight, torch.Tensor)
            assert bias is None or isinstance(bias, torch.Tensor)
            result = self._hook(inputs, weight, bias)
            if result is not None:
                return result
        return func(*args, **(kwargs or {}))
