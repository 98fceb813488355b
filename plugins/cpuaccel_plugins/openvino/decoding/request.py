"""An engine's memory of one text: its keys and values as the state of a request."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from cpuaccel import BackendError

if TYPE_CHECKING:
    import openvino

Rows = tuple[int, ...]
"""Rows of a batch, in the order in which they are wanted."""

Variables = Sequence[tuple[str, str]]
"""The names of the variables with each layer's keys and values."""


class Request:
    """An infer request that goes on with a text from call to call.

    Attributes:
        compiled: the model.
        batch: rows of the state; None before the first tokens.
        version: how many calls there were.
        rows: the rows that the last call took from the state before it; None if all in order.
        is_broken: whether a call failed, so that some layers may be without its tokens.
    """

    def __init__(self, compiled: "openvino.CompiledModel", variables: Variables) -> None:
        self.compiled = compiled
        self._request = compiled.create_infer_request()
        self._variables = variables
        self.batch: int | None = None
        self.version = 0
        self.rows: Rows | None = None
        self.is_broken = False

    def fill(self, layers: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Set the state: keys and values of each layer, with all tokens."""
        import openvino

        states = {state.name: state for state in self._request.query_state()}
        for names, tensors in zip(self._variables, layers, strict=True):
            for name, tensor in zip(names, tensors, strict=True):
                array = tensor.detach().float().contiguous().numpy()
                states[name].state = openvino.Tensor(array)
                self.batch = len(array)

    def run(self, inputs: dict[str, torch.Tensor], rows: Rows | None) -> torch.Tensor:
        """Compute the logits of new tokens, and append these to the state.

        Args:
            inputs: by name.
            rows: the rows of the state to go on with; None for all in order.

        Raises:
            BackendError: the batch is another one than the state's.
        """
        batch = len(inputs["input_ids"])
        expected = self.batch if rows is None else len(rows)
        if expected not in (None, batch):
            raise BackendError(f"the batch has {batch} rows, and the cache {expected}")
        arrays = {name: tensor.contiguous().numpy() for name, tensor in inputs.items()}
        arrays["beam_idx"] = np.array(range(batch) if rows is None else rows, dtype=np.int32)
        self.batch, self.rows = batch, rows
        self.version += 1
        try:
            self._request.infer(arrays, share_inputs=True, share_outputs=True)
        except Exception:
            self.is_broken = True
            raise
        # Copied, because the next call overwrites it.
        return torch.from_numpy(self._request.get_output_tensor(0).data.copy())

    def read(self, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Copy the keys and values of a layer, in float32."""
        states = {state.name: state for state in self._request.query_state()}
        keys, values = (
            torch.from_numpy(states[name].state.data.copy()) for name in self._variables[layer]
        )
        return keys, values


@dataclass(frozen=True)
class StateLayer:
    """The keys and values of a layer in a request, after one of its calls.

    Attributes:
        request: where they are.
        version: number of that call.
        layer: number of the layer.
        tokens: number of tokens.
        rows: the rows that are wanted; None for all in order.
        dtype: of the tensors that ``read`` returns.
        nbytes: bytes that a step reads of it.
    """

    request: Request
    version: int
    layer: int
    tokens: int
    rows: Rows | None
    dtype: torch.dtype
    nbytes: int

    def read(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Copy the keys and values of all tokens, shape (batch, heads, tokens, head size).

        Raises:
            BackendError: they are lost.
        """
        request, rows = self.request, self.rows
        if request.version == self.version + 1 and request.rows == rows:
            # A call that was given up has appended to them, in the order that is wanted.
            rows = None
        elif request.version != self.version:
            raise BackendError("the contents of the cache were overwritten", "Use a copy of it")
        if request.is_broken and self.rows is not None:
            raise BackendError("the cache is lost, because OpenVINO failed", "Generate anew")
        selected = slice(None) if rows is None else torch.tensor(rows)
        keys, values = (
            tensor[selected, :, : self.tokens].to(self.dtype) for tensor in request.read(self.layer)
        )
        return keys, values

    def reorder(self, rows: Sequence[int]) -> "StateLayer":
        """Select rows of those that are wanted."""
        before = self.rows
        return replace(
            self, rows=tuple(rows) if before is None else tuple(before[row] for row in rows)
        )
