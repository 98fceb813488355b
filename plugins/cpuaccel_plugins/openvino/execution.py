"""Calling a compiled OpenVINO model with torch tensors, from any thread."""

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from cpuaccel import BackendError
from cpuaccel_plugins.common.engine_errors import leave_out

if TYPE_CHECKING:
    import openvino


class CompiledCall:
    """Takes input tensors by name, and returns the output's tensors as a flat tuple.

    Inputs are read where they lie. Outputs are copied out of OpenVINO's memory, which its next call
    overwrites. Handing it memory for each call instead saves the copy, a tenth of a percent of the
    time, and leaves that memory empty where a model returns one tensor twice.
    """

    def __init__(
        self,
        compiled: "openvino.CompiledModel",
        tensors: Sequence[str],
        returns: torch.dtype | None,
        backend: str,
    ) -> None:
        """Wrap a compiled model.

        Args:
            compiled: with floating inputs in float32.
            tensors: names of the inputs.
            returns: the dtype of floating outputs; None for OpenVINO's own.
            backend: the backend's name, for errors.

        Raises:
            BackendError: the model lost the name of an input.
        """
        import openvino

        self._tensor = openvino.Tensor
        self._compiled = compiled
        self._returns = returns
        self._local = threading.local()
        ports = {
            name: index
            for name in tensors
            for index, port in enumerate(compiled.inputs)
            if name in port.get_names()
        }
        if len(ports) < len(compiled.inputs):
            raise BackendError(
                f"of {len(compiled.inputs)} inputs OpenVINO kept the names of {len(ports)} "
                f"({', '.join(ports) or 'none'})",
                leave_out(backend),
            )
        self._ports = ports
        self._outputs = range(len(compiled.outputs))

    def __call__(self, **inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Run the model."""
        request = self._request()
        for name, index in self._ports.items():
            tensor = inputs[name].detach()
            if tensor.dtype is torch.bfloat16:  # numpy has none
                tensor = tensor.float()
            view = self._tensor(tensor.contiguous().numpy(), shared_memory=True)
            request.set_input_tensor(index, view)
        request.infer()
        # Copied by numpy, in this thread: torch would wake threads of its own for it.
        answers = tuple(
            torch.from_numpy(request.get_output_tensor(index).data.copy())
            for index in self._outputs
        )
        if self._returns is None:
            return answers
        return tuple(a.to(self._returns) if a.is_floating_point() else a for a in answers)

    def _request(self) -> "openvino.InferRequest":
        """This thread's: two threads in one request would write into each other's outputs."""
        request: openvino.InferRequest | None = getattr(self._local, "request", None)
        if request is None:
            request = self._local.request = self._compiled.create_infer_request()
        return request
