"""Snapshots of a model and of this process, to compare before and after."""

import os
import random
from typing import Any

import torch


def model_state(model: torch.nn.Module) -> dict[str, object]:
    """Record everything of a model that ``optimize`` must not change."""
    state: dict[str, object] = {}
    for name, module in model.named_modules():
        state[f"{name} is"] = id(module)
        state[f"{name} type"] = type(module)
        state[f"{name} training"] = module.training
        state[f"{name} attributes"] = sorted(vars(module))
        state[f"{name} hooks"] = [
            (attribute, list(value))
            for attribute, value in sorted(vars(module).items())
            if attribute.endswith("_hooks") and isinstance(value, dict)
        ]
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        state[f"{name} tensor"] = (id(tensor), tensor.dtype, tensor.requires_grad)
        state[f"{name} values"] = tensor.detach().flatten().contiguous().view(torch.uint8).tolist()
    config: Any = getattr(model, "config", None)
    if hasattr(config, "to_dict"):
        state["config"] = repr(config.to_dict())
        state["attention"] = getattr(config, "_attn_implementation", None)
    return state


def global_state() -> dict[str, object]:
    """Record the global settings of this process that ``optimize`` must not change."""
    return {
        "threads": torch.get_num_threads(),
        "interop threads": torch.get_num_interop_threads(),
        "default dtype": torch.get_default_dtype(),
        "grad mode": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "float32 matmul precision": torch.get_float32_matmul_precision(),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "torch random state": torch.random.get_rng_state().tolist(),
        "python random state": random.getstate(),
        "environment variables": dict(os.environ),
        "working directory": os.getcwd(),
    }


def changed(before: dict[str, object], after: dict[str, object]) -> list[str]:
    """List the keys whose values differ between two snapshots."""
    return sorted(
        name
        for name in before.keys() | after.keys()
        if before.get(name, _ABSENT) != after.get(name, _ABSENT)
    )


_ABSENT = object()
