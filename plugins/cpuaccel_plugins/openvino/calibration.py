"""Samples for the ranges of activations."""

from collections.abc import Mapping
from pathlib import Path

import torch

from cpuaccel import BackendError, Signature, describe_error, dtype_name

Sample = dict[str, torch.Tensor]
"""Inputs of one row, by name."""


def examples(signature: Signature, file: Path | None) -> list[Sample]:
    """Read samples from a file, or use the rows of the example inputs.

    Args:
        signature: the example inputs.
        file: a safetensors file with a tensor for each input, one row per sample.

    Raises:
        BackendError: the file can't be read, or its names or dtypes differ from the inputs'.
    """
    if file is None:
        return _rows(signature.tensor_inputs, signature.axes.batch)
    remedy = "Write it with safetensors.torch.save_file({'input_ids': ..., ...}, file)"
    # An optional dependency: import it only if it is needed.
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(file)
    except (OSError, SafetensorError) as error:
        reason = f"can't read calibration={str(file)!r}: {describe_error(error)}"
        raise BackendError(reason, remedy) from error
    expected = {name: tensor.dtype for name, tensor in signature.tensor_inputs.items()}
    dtypes = {name: tensor.dtype for name, tensor in tensors.items()}
    if dtypes != expected:
        raise BackendError(
            f"calibration={str(file)!r} has {_describe(dtypes)}, but the inputs are "
            f"{_describe(expected)}",
            remedy,
        )
    return _rows(tensors, tuple(tensors))


def _rows(inputs: Mapping[str, torch.Tensor], batched: tuple[str, ...]) -> list[Sample]:
    count = min((len(inputs[name]) for name in batched), default=1)
    return [
        {
            name: tensor[row : row + 1] if name in batched else tensor
            for name, tensor in inputs.items()
        }
        for row in range(count)
    ]


def _describe(dtypes: Mapping[str, torch.dtype]) -> str:
    return ", ".join(f"{name} in {dtype_name(d)}" for name, d in dtypes.items()) or "nothing"
