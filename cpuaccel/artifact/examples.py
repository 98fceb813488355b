"""Stored example calls: tensors in ``examples.safetensors``, the rest in ``artifact.json``."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from cpuaccel.artifact.record import Call, Constant, Dtype, Script
from cpuaccel.checks.compare import compare
from cpuaccel.checks.probes import Probe
from cpuaccel.model.output import Leaf, leaves
from cpuaccel.model.precision import dtype_name
from cpuaccel.model.signature import Inputs, Signature, tensors_of
from cpuaccel.report import Difference


@dataclass(frozen=True)
class Example:
    """One call with the original's output."""

    call: Call
    inputs: Inputs
    outputs: list[Leaf]

    @classmethod
    def from_output(cls, signature: Signature, output: object, script: Script | None) -> "Example":
        """Record a call."""
        tensors = leaves(output)
        call = Call(
            signature=str(signature),
            tensors=signature.tensors,
            constants={name: _constant(value) for name, value in signature.constants.items()},
            answers=tuple(leaf.path for leaf in tensors),
            script=script,
        )
        return cls(call, signature.inputs, tensors)

    @classmethod
    def from_tensors(
        cls, number: int, call: Call, tensors: Mapping[str, torch.Tensor]
    ) -> "Example":
        """Restore a call from what ``tensors`` returned."""
        inputs: Inputs = {name: tensors[_input(number, name)] for name in call.tensors}
        for name, value in call.constants.items():
            inputs[name] = value.to_torch() if isinstance(value, Dtype) else value
        outputs = [
            Leaf(path, tensors[_output(number, index)]) for index, path in enumerate(call.answers)
        ]
        return cls(call, inputs, outputs)

    def tensors(self, number: int) -> dict[str, torch.Tensor]:
        """Return inputs and outputs by their keys in ``examples.safetensors``."""
        return {
            **{_input(number, name): t for name, t in tensors_of(self.inputs).items()},
            **{_output(number, index): leaf.tensor for index, leaf in enumerate(self.outputs)},
        }

    def compare(
        self, output: object, original: Callable[..., object], tolerance: float
    ) -> list[Difference]:
        """Compare an output with the stored one."""
        # Python values are not stored: those of the output itself take their place.
        probe = Probe("example", self.inputs, output, self.outputs)
        return compare(probe, output, original, tolerance)


def _input(number: int, name: str) -> str:
    return f"{number}/inputs/{name}"


def _output(number: int, index: int) -> str:
    return f"{number}/answers/{index}"  # the name in format 1


def _constant(value: object) -> Constant:
    if isinstance(value, torch.dtype):
        return Dtype(dtype=dtype_name(value))
    assert value is None or isinstance(value, bool | int | float | str)
    return value
