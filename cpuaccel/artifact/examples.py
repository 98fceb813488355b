"""Example inputs and the original's answers: tensors in one file, names in another."""

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
    """One call that an artifact remembers.

    Attributes:
        call: its names.
        inputs: by name.
        answers: the original's.
    """

    call: Call
    inputs: Inputs
    answers: list[Leaf]

    @classmethod
    def of(cls, signature: Signature, output: object, script: Script | None) -> "Example":
        """Describe a call.

        Args:
            signature: the call's inputs.
            output: what the original answers.
            script: TorchScript that answers it.
        """
        found = leaves(output)
        call = Call(
            signature=str(signature),
            tensors=signature.tensors,
            constants={name: _constant(value) for name, value in signature.constants.items()},
            answers=tuple(leaf.path for leaf in found),
            script=script,
        )
        return cls(call, signature.inputs, found)

    def tensors(self, number: int) -> dict[str, torch.Tensor]:
        """Inputs and answers under the names that they have in the file."""
        return {
            **{_input(number, name): t for name, t in tensors_of(self.inputs).items()},
            **{_answer(number, place): leaf.tensor for place, leaf in enumerate(self.answers)},
        }

    @classmethod
    def read(cls, number: int, call: Call, tensors: Mapping[str, torch.Tensor]) -> "Example":
        """The inverse of ``tensors``.

        Raises:
            KeyError: a tensor is missing.
        """
        inputs: Inputs = {name: tensors[_input(number, name)] for name in call.tensors}
        for name, value in call.constants.items():
            inputs[name] = value.of_torch() if isinstance(value, Dtype) else value
        answers = [
            Leaf(path, tensors[_answer(number, place)]) for place, path in enumerate(call.answers)
        ]
        return cls(call, inputs, answers)

    def differences(self, output: object, original: Callable[..., object]) -> list[Difference]:
        """How far an output is from the stored answers.

        Args:
            output: what was answered to ``inputs`` now.
            original: the model, which for audio knows which frames are real.
        """
        return compare(Probe("example", self.inputs, None, self.answers), output, original)


def _input(number: int, name: str) -> str:
    return f"{number}/inputs/{name}"


def _answer(number: int, place: int) -> str:
    return f"{number}/answers/{place}"


def _constant(value: object) -> Constant:
    if isinstance(value, torch.dtype):
        return Dtype(dtype=dtype_name(value))
    assert value is None or isinstance(value, bool | int | float | str)
    return value
