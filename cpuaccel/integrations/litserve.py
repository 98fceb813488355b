"""Optimized models in LitServe, which collects batches itself.

Example:

    api = TaskAPI(load_embedder, folder, max_batch_size=32, batch_timeout=0.005)
    litserve.LitServer(api, accelerator="cpu").run()
"""

from collections.abc import Callable
from typing import Any

import litserve
import numpy as np

from cpuaccel.integrations.batching.groups import TOKENS
from cpuaccel.integrations.batching.isolation import Failed, compute_in_groups


class TaskAPI(litserve.LitAPI):  # type: ignore[misc]
    """Serves a task: the request ``{"input": text}`` gets ``{"output": ...}``.

    LitServe cuts batches by their number of requests; they are computed in groups of similar
    length here. A row that raises fails alone.
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
        """Return the text."""
        return request["input"]

    def predict(self, x: Any, **kwargs: Any) -> Any:
        """Compute one input, or a list of them where LitServe batches."""
        batched = self.max_batch_size > 1
        outputs = self._compute(x if batched else [x])
        return outputs if batched else outputs[0]

    def encode_response(self, output: Any, **kwargs: Any) -> dict[str, Any]:
        """Return the output; that of a row that raised is its error."""
        if isinstance(output, Failed):
            raise output.error
        return {"output": output.tolist() if isinstance(output, np.ndarray) else output}

    def _compute(self, items: list[Any]) -> list[Any]:
        return compute_in_groups(self._task.run, self._task.encode(items), self._tokens)
