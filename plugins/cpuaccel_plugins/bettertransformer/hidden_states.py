"""The hidden states that Transformers collects inside an encoder, which are packed there."""

import torch

try:
    # Hooks on the layers append to the lists of this context variable's dict.
    from transformers.utils.output_capturing import _active_collector as _collector
except ImportError:  # an older Transformers 5 collects them where nothing else can reach them
    _collector = None  # type: ignore[assignment]

CAN_BE_UNPACKED = _collector is not None


def collected() -> list[torch.Tensor | None]:
    """Return the list of hidden states of the current call, which may be changed; or empty."""
    outputs = None if _collector is None else _collector.get()
    return [] if outputs is None else outputs.get("hidden_states", [])
