"""Calling a compiled OpenVINO model with torch tensors, in any thread."""

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from cpuaccel import BackendError
from cpuaccel_plugins.common.engine_errors import leave_out

if TYPE_CHECKING:
    import openvino


class CompiledCall:
    """Takes input tensors by name, and returns the output's tensors as a flat tuple."""

    def __init__(
        self,
        compiled: "openvino.CompiledModel",
        tensors: Sequence[str],
        returns: torch.dtype | None,
        backend: str,
        memory: object = None,
    ) -> None:
        """Wrap a compiled model.

        Args:
            compiled: the model.
            tensors: names of the inputs.
            returns: the dtype of floating outputs, if not its own.
            backend: name of the backend.
            memory: what the model reads and does not own.
        """
        import openvino

        self._tensor = openvino.Tensor
        self._compiled = compiled
        self._memory = memory
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
                f"OpenVINO kept the names of {len(ports)} of {len(compiled.inputs)} inputs: "
                f"{', '.join(ports) or 'none'}",
                leave_out(backend),
            )
        self._ports = ports
        self._outputs = range(len(compiled.outputs))

    def __call__(self, **inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Run the model."""
        request = self._request()
        arrays = []  # OpenVINO reads their memory in infer and does not own it
        for name, index in self._ports.items():
            tensor = inputs[name].detach()
            if tensor.dtype is torch.bfloat16:  # numpy has no bfloat16
                tensor = tensor.float()
            arrays.append(tensor.contiguous().numpy())
            view = self._tensor(arrays[-1], shared_memory=True)
            request.set_input_tensor(index, view)
        request.infer()
        # Copied, because the next call overwrites them. Output tensors set by the caller would save
        # 0.1% of the time, but stay empty if a model returns one tensor twice.
        # numpy copies in this thread; torch would wake its own threads.
        outputs = tuple(
            torch.from_numpy(request.get_output_tensor(index).data.copy())
            for index in self._outputs
        )
        if self._returns is None:
            return outputs
        return tuple(t.to(self._returns) if t.is_floating_point() else t for t in outputs)

    def _request(self) -> "openvino.InferRequest":
        """Return this thread's request: threads that share one overwrite each other's outputs."""
        request: openvino.InferRequest | None = getattr(self._local, "request", None)
        if request is None:
            request = self._local.request = self._compiled.create_infer_request()
        return request
