"""Optimized models in LitServe, which collects batches itself.

Example:

    api = TaskAPI(load_embedder, folder, max_batch_size=32, batch_timeout=0.005)
    litserve.LitServer(api, accelerator="cpu").run()
"""

from collections.abc import Callable
from typing import Any

import litserve
import numpy as np
from fastapi import HTTPException

from cpuaccel.errors import describe_error
from cpuaccel.integrations.batching.groups import TOKENS
from cpuaccel.integrations.batching.isolation import Failed, compute_in_groups, compute_isolated
from cpuaccel.integrations.http.errors import error_of, error_response


class TaskAPI(litserve.LitAPI):  # type: ignore[misc]
    """Serves a task: the request ``{"input": text}`` gets ``{"output": ...}``.

    LitServe cuts batches by their number of requests; they are computed in groups of similar
    length here. A request that is refused or raises gets an error in OpenAI's form, and the others
    of its batch their outputs.
    """

    def __init__(
        self, load: Callable[..., Any], *arguments: Any, tokens: int = TOKENS, **options: Any
    ) -> None:
        """Take what loads the task in each worker, such as ``load_embedder``.

        Args:
            load: a function of ``cpuaccel.integrations.tasks``.
            *arguments: its arguments.
            tokens: most real tokens of a batch.
            **options: of ``litserve.LitAPI``.
        """
        super().__init__(**options)
        self._load = load
        self._arguments = arguments
        self._tokens = tokens
        self._task: Any = None

    def setup(self, device: str) -> None:
        """Load the model."""
        self._task = self._load(*self._arguments)

    def decode_request(self, request: dict[str, Any], **kwargs: Any) -> Any:
        """Return the input, or why there is none: what this raises fails a whole batch."""
        if "input" in request:
            return request["input"]
        return _refused('a request must be {"input": ...}')

    def predict(self, x: Any, **kwargs: Any) -> Any:
        """Compute one input, or a list of them where LitServe batches."""
        batched = self.max_batch_size > 1
        outputs = self._compute(x if batched else [x])
        return outputs if batched else outputs[0]

    def encode_response(self, output: Any, **kwargs: Any) -> Any:
        """Return the output, or the error."""
        if not isinstance(output, Failed):
            return {"output": output.tolist() if isinstance(output, np.ndarray) else output}
        if isinstance(output.error, HTTPException):
            return error_response(output.error.status_code, str(output.error.detail))
        return error_response(*error_of(output.error))

    def _compute(self, items: list[Any]) -> list[Any]:
        found = dict(enumerate(items))
        places = [place for place, item in found.items() if not isinstance(item, Failed)]
        encoded = compute_isolated(self._task.encode, [items[place] for place in places])
        rows = {}
        for place, row in zip(places, encoded):
            if isinstance(row, Failed):
                found[place] = _refused(f"the input can't be read: {describe_error(row.error)}")
            else:
                rows[place] = row
        outputs = compute_in_groups(self._task.run, list(rows.values()), self._tokens)
        found.update(zip(rows, outputs))
        return list(found.values())


def _refused(message: str) -> Failed:
    return Failed(HTTPException(422, message))
