"""The sizes for which a model's Python code takes the same path, from a symbolic run."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from cpuaccel.checks.axis_groups import AxisGroups
from cpuaccel.checks.symbolic_size import Guard, Memo, SymbolicSize
from cpuaccel.checks.value_reads import as_captured
from cpuaccel.model.copying import shared_copy
from cpuaccel.model.output import constants
from cpuaccel.model.precision import autocast_enabled
from cpuaccel.model.signature import Binder, Inputs
from cpuaccel.model.torch_modes import outside_inference_mode

logger = logging.getLogger("cpuaccel")

SMALLEST = 2
"""The smallest size that a symbolic run stands for: 0 and 1 may take other paths."""


@dataclass(frozen=True)
class SizeGuards:
    """What the Python code decided by sizes in a symbolic run."""

    guards: tuple[Guard, ...]

    def violated(self, sizes: Mapping[str, int]) -> Guard | None:
        """Return a decision that is another one for these sizes of the axis groups, or None."""
        memo: Memo = {}
        return next((guard for guard in self.guards if not guard.holds(sizes, memo)), None)


def find_size_guards(
    model: torch.nn.Module, binder: Binder, groups: AxisGroups, inputs: Inputs
) -> SizeGuards | None:
    """Run the model once on tensors without values, whose sizes are symbols.

    As in ``torch.export``'s non-strict mode the Python code runs on ``torch.SymInt``: a comparison
    or a conversion to int is a decision. So is a number in the output that depends on a size.

    Args:
        model: the original; a copy of it runs.
        binder: calls the original.
        groups: the axes of the inputs. Sizes 0 and 1 are taken for constants.
        inputs: inputs that the model accepts.

    Returns:
        None where this torch has no symbolic sizes, or the model can't be run on them.
    """
    sizes = groups.sizes(inputs)
    assert sizes is not None
    guards: list[Guard] = []
    try:
        from torch._dispatch.python import enable_python_dispatcher
        from torch._subclasses.fake_tensor import FakeTensorMode

        fake = FakeTensorMode(allow_non_fake_inputs=True)
        fake.cache_enabled = False  # it knows torch's own symbols only
        copied = shared_copy(model)
        _copy_buffers(copied)
        with (
            outside_inference_mode(),
            as_captured(),
            fake,
            enable_python_dispatcher(),
            KnownSizes(),
        ):
            nodes = {name: SymbolicSize(size, guards, name=name) for name, size in sizes.items()}
            symbols = {
                name: torch.SymInt(node) if sizes[name] >= SMALLEST else sizes[name]  # type: ignore[no-untyped-call]
                for name, node in nodes.items()
            }
            output = binder.call(copied, groups.empty(inputs, symbols))
    except Exception:
        logger.debug("the model can't be run on symbolic sizes", exc_info=True)
        return None
    guards += [
        Guard(node, node.value, f"a size of {node.value} in the example")
        for node in nodes.values()
        if node.value < SMALLEST
    ]
    guards += [
        Guard(number.node, number.node.value, f"the output's {path}")
        for path, number in constants(output)
        if isinstance(number, (torch.SymInt, torch.SymFloat, torch.SymBool))
    ]
    return SizeGuards(tuple(guards))


_SAME_SIZES = frozenset(
    {functional.layer_norm, functional.gelu, functional.silu, functional.relu, functional.dropout}
)


_RECURRENT = frozenset({torch.gru, torch.rnn_tanh, torch.rnn_relu})
"""Operators that torch takes apart into a loop over the length."""


class KnownSizes(TorchFunctionMode):
    """Makes the outputs of some operators itself: torch takes far longer, or loses their sizes."""

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: object,
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        match args:
            case [torch.Tensor() as x, torch.Tensor() as weight, *_] if func is functional.linear:
                if x.dtype == weight.dtype and not autocast_enabled():
                    return x.new_empty((*x.shape[:-1], *weight.shape[:-1]))
            case [torch.Tensor() as x, *_] if func in _SAME_SIZES and not autocast_enabled():
                return x.new_empty(x.shape)
            case [
                torch.Tensor() as x,
                torch.Tensor() as state,
                list(),
                bool(),
                int(),
                float(),
                bool(),
                bool() as both_ways,
                bool(),
            ] if func in _RECURRENT:
                width = state.shape[-1] * (1 + both_ways)
                return x.new_empty((*x.shape[:-1], width)), state.new_empty(state.shape)
        return func(*args, **(kwargs or {}))


def _copy_buffers(model: torch.nn.Module) -> None:
    """Copy buffers, with which operators on buffers only really compute."""
    for module in model.modules():
        for tensors in (module._buffers, vars(module)):
            for name, tensor in tensors.items():
                if isinstance(tensor, torch.Tensor):
                    tensors[name] = tensor.detach().clone()
