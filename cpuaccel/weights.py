"""Telling whether a model's weights are still what they were."""

import itertools

import torch

WeightsState = tuple[tuple[int, int, int, torch.dtype], ...]
"""For each parameter and buffer: which tensor it is, where its data lies, how often it was changed
in place, and its dtype."""


def weights_state(model: torch.nn.Module) -> WeightsState:
    """What to compare later, in microseconds a tensor, without reading the weights.

    Sees tensors that were replaced, cast, moved, or changed in place: by an optimizer's step,
    ``load_state_dict`` or any other operation of torch's. Does not see changes through ``.data`` or
    numpy, which torch doesn't count either.

    Args:
        model: a module; keep it while its state is kept, or an id may come back as another's.
    """
    return tuple(
        (
            id(tensor),
            tensor.data_ptr(),
            0 if tensor.is_inference() else tensor._version,
            tensor.dtype,
        )
        for tensor in itertools.chain(model.parameters(), model.buffers())
    )
