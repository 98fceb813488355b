"""What exporters need in order to leave batch and length open."""

import torch

from cpuaccel import Signature


def open_axes(signature: Signature) -> dict[str, dict[int, object]]:
    """Of each tensor the axes that are the batch or the length, for the exporter to judge.

    What it fixes all the same is found by comparing answers.
    """
    from torch.export import Dim

    return {
        name: {
            axis: Dim.AUTO
            for axis, names in enumerate((signature.axes.batch, signature.axes.length))
            if name in names
        }
        for name in signature.tensors
    }


def at_least_two(signature: Signature) -> dict[str, torch.Tensor]:
    """The example's tensors, with at least two rows and tokens: an exporter takes one for fixed."""
    example = dict(signature.tensor_inputs)
    for axis, names in enumerate((signature.axes.batch, signature.axes.length)):
        for name in names:
            if example[name].shape[axis] == 1:
                example[name] = torch.cat([example[name]] * 2, axis)
    return example
