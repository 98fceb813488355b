"""Unloading weights that a stepper does not read: the original reads them from a file if needed."""

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch

from cpuaccel.generation.weights.mapped_memory import drop_pages, mapped, move_to_file
from cpuaccel.model.torch_modes import outside_inference_mode
from cpuaccel.plugin.cache_folder import cache_folder

logger = logging.getLogger("cpuaccel")

MOST_READ = 2**24
"""Most weights of a linear of the original that are read at once while it is compared."""


class UnloadedWeights:
    """The weights of one model that its stepper has replaced, such as by ones in 8 bits.

    The model stays as it is and can be called: its weights are in memory that is mapped from a
    file. That is the checkpoint's file, where ``from_pretrained`` has mapped it; other weights are
    written to a file in the folder of caches first. 8 bits could not restore them.

    Attributes:
        count: number of weights.
    """

    def __init__(
        self, model: torch.nn.Module, on_move: Callable[[list[torch.nn.Parameter]], None]
    ) -> None:
        """Start with none; call ``on_move`` with parameters whose memory is another one."""
        self._model = model
        self._on_move = on_move
        self._may_write = True
        self.count = 0

    def unload(self, weight: torch.Tensor) -> bool:
        """Free a weight's memory; see ``cpuaccel.Unload``."""
        named = [one for one in self._model.parameters() if one is weight]
        if not named or not (any(map(drop_pages, mapped(named))) or self._move(named[0])):
            return False
        self.count += 1
        return True

    @contextmanager
    def kept_out(self, model: torch.nn.Module) -> Iterator[None]:
        """While a model is called, drop the weights of each module as soon as it has run.

        Of a large linear, such as the head, those of each part.

        Args:
            model: the original, whose weights may be those that were unloaded.
        """
        with ExitStack() as hooks:
            of_files = set(mapped(model.parameters())) if self.count else set()
            for module in model.modules():
                weights = [w for w in module.parameters(recurse=False) if w in of_files]
                if weights:
                    hooks.callback(module.register_forward_hook(_dropping(weights)).remove)
                    if type(module) is torch.nn.Linear and "forward" not in vars(module):
                        hooks.enter_context(_in_parts(module))
            yield

    def _move(self, parameter: torch.nn.Parameter) -> bool:
        """Move a parameter to a file, if nothing else uses its memory."""
        if not self._may_write:
            return False
        owner = parameter.untyped_storage()
        sharing = [
            tensor
            for tensor in (*self._model.parameters(), *self._model.buffers())
            if tensor.untyped_storage().data_ptr() == owner.data_ptr()
        ]
        if len(sharing) > 1 or owner.nbytes() != parameter.nbytes:
            return False
        if parameter.is_inference() or not parameter.is_contiguous():
            return False
        try:
            with outside_inference_mode():
                parameter.data = move_to_file(parameter.detach(), cache_folder("weights"))
        except OSError as error:
            self._may_write = False
            logger.warning("weights stay in memory: they can't be written to a file (%s)", error)
            return False
        self._on_move([parameter])
        return True


@contextmanager
def _in_parts(linear: torch.nn.Linear) -> Iterator[None]:
    """Compute a linear in parts of its outputs, and drop the weights of each."""
    weight, bias = linear.weight.detach(), linear.bias
    size = MOST_READ // linear.in_features + 1

    def forward(inputs: torch.Tensor) -> torch.Tensor:
        outputs = []
        for begin in range(0, len(weight), size):
            part = slice(begin, begin + size)
            of_part = None if bias is None else bias[part]
            outputs.append(torch.nn.functional.linear(inputs, weight[part], of_part))
            drop_pages(weight[part])
        return torch.cat(outputs, -1)

    if len(weight) <= size:
        yield
        return
    linear.forward = forward  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        del linear.forward


def _dropping(weights: list[torch.nn.Parameter]) -> Callable[..., None]:
    def drop(*_: object) -> None:  # of this module, by which cpuaccel's own hooks are told
        for weight in weights:
            drop_pages(weight)

    return drop
