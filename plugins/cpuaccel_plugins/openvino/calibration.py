"""The samples from which ranges of activations are taken."""

from collections.abc import Mapping
from pathlib import Path

import torch

from cpuaccel import BackendError, Signature, dtype_name

Sample = dict[str, torch.Tensor]
"""Inputs by name, of one row."""


def examples(signature: Signature, file: Path | None) -> list[Sample]:
    """Samples from a file, or else the rows of the example inputs.

    Args:
        signature: how the model is called.
        file: a safetensors file with a tensor for each of the inputs, one row for each sample.

    Raises:
        BackendError: the file can't be read, or does not hold these inputs.
    """
    if file is None:
        return _rows(signature.tensor_inputs, signature.axes.batch)
    remedy = "Write it with safetensors.torch.save_file({'input_ids': ..., ...}, file)"
    # Read only where asked for: not every user of openvino has it.
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        found = load_file(file)
    except (OSError, SafetensorError) as error:
        raise BackendError(f"calibration={str(file)!r} can't be read: {error}", remedy) from error
    expected = {name: tensor.dtype for name, tensor in signature.tensor_inputs.items()}
    given = {name: tensor.dtype for name, tensor in found.items()}
    if given != expected:
        raise BackendError(
            f"calibration={str(file)!r} holds {_told(given)}, but the model is called with "
            f"{_told(expected)}",
            remedy,
        )
    return _rows(found, tuple(found))


def _rows(inputs: Mapping[str, torch.Tensor], batched: tuple[str, ...]) -> list[Sample]:
    count = min((len(inputs[name]) for name in batched), default=1)
    return [
        {
            name: tensor[row : row + 1] if name in batched else tensor
            for name, tensor in inputs.items()
        }
        for row in range(count)
    ]


def _told(dtypes: Mapping[str, torch.dtype]) -> str:
    return ", ".join(f"{name} in {dtype_name(d)}" for name, d in dtypes.items()) or "nothing"
