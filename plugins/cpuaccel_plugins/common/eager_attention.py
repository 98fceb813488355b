"""Eager attention for a Transformers model, which IPEX and optimum can replace."""

import copy

import torch

from cpuaccel import BackendError, describe_error


def with_eager_attention(model: torch.nn.Module) -> torch.nn.Module:
    """Rebuild a Transformers model with eager attention, on the same weights."""
    config = getattr(model, "config", None)
    kind = getattr(config, "_attn_implementation", "eager")
    if kind == "eager" or not hasattr(type(model), "_from_config"):
        return model
    # Before Transformers 5 most models choose their attention's class when they are created.
    with torch.device("meta"):
        rebuilt: torch.nn.Module = type(model)._from_config(  # type: ignore[attr-defined]
            copy.deepcopy(config), attn_implementation="eager"
        )
    try:
        rebuilt.load_state_dict(model.state_dict(), assign=True)
    except RuntimeError as error:
        raise BackendError(
            f"{type(model).__name__} does not match its config, so it can't be rebuilt with eager "
            f"attention: {describe_error(error)}",
            "Load the model with attn_implementation='eager'",
        ) from error
    rebuilt.tie_weights()  # type: ignore[operator]
    # Also the buffers that state dicts leave out, such as position ids.
    for path, buffer in model.named_buffers():
        owner, _, name = path.rpartition(".")
        rebuilt.get_submodule(owner)._buffers[name] = buffer
    return rebuilt.eval()
