"""What a call asks a Transformers model to return besides its usual outputs."""

import torch

from cpuaccel import Signature


def requests(model: torch.nn.Module, signature: Signature, name: str) -> bool:
    """Whether the call, or else the model's config, asks for it, e.g. ``output_attentions``."""
    asked = signature.constants.get(name)
    if asked is None:
        asked = getattr(getattr(model, "config", None), name, False)
    return bool(asked)
