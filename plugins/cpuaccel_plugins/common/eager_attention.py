"""Giving a Transformers model eager attention, which IPEX and optimum know how to replace."""

import copy

import torch

from cpuaccel import BackendError, describe_error


def with_eager_attention(model: torch.nn.Module) -> torch.nn.Module:
    """Rebuild a model with eager attention, on the same weights.

    Before Transformers 5 most models choose another class for each kind of attention when they
    are made, so it can't be switched afterwards.

    Args:
        model: a Transformers model, in eval mode; stays as it is. Anything else, and a model
            whose attention is eager already, is returned itself.

    Raises:
        BackendError: the model isn't what its configuration says, so it can't be rebuilt.
    """
    config = getattr(model, "config", None)
    kind = getattr(config, "_attn_implementation", "eager")
    if kind == "eager" or not hasattr(type(model), "_from_config"):
        return model
    with torch.device("meta"):
        rebuilt: torch.nn.Module = type(model)._from_config(  # type: ignore[attr-defined]
            copy.deepcopy(config), attn_implementation="eager"
        )
    try:
        rebuilt.load_state_dict(model.state_dict(), assign=True)
    except RuntimeError as error:
        raise BackendError(
            f"{type(model).__name__} was changed after it was made, so it can't be rebuilt with "
            f"eager attention: {describe_error(error)}",
            "Load the model with attn_implementation='eager'",
        ) from error
    rebuilt.tie_weights()  # type: ignore[operator]
    _share_buffers(model, rebuilt)
    return rebuilt.eval()


def _share_buffers(source: torch.nn.Module, target: torch.nn.Module) -> None:
    """Hand over what no state dict holds: buffers such as position ids."""
    for path, buffer in source.named_buffers():
        owner, _, name = path.rpartition(".")
        target.get_submodule(owner)._buffers[name] = buffer
