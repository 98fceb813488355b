"""Arguments with which an exporter leaves batch and length dynamic."""

import torch

from cpuaccel import Signature


def open_axes(signature: Signature) -> dict[str, dict[int, object]]:
    """Let the exporter decide for each batch and length axis whether it is dynamic.

    cpuaccel finds the axes that it fixes by comparing outputs.
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
    """Repeat the example's tensors to two rows and tokens, because exporters fix a size of one."""
    example = dict(signature.tensor_inputs)
    for axis, names in enumerate((signature.axes.batch, signature.axes.length)):
        for name in names:
            if example[name].shape[axis] == 1:
                example[name] = torch.cat([example[name]] * 2, axis)
    return example
