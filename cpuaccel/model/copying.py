"""Copying a module's structure without copying its weights."""

import copy
import functools
from collections.abc import Set

import torch

from cpuaccel.errors import ModelError
from cpuaccel.model.output import tensors


def shared_copy(model: torch.nn.Module, dtype: torch.dtype | None = None) -> torch.nn.Module:
    """Copy a module tree and share its weights, or cast them.

    Replacing submodules, hooks or the configuration of the copy does not change the original. Its
    hooks are the original's own objects, so that what they record is where the caller looks for it.

    Args:
        model: the module.
        dtype: precision for floating-point parameters and buffers; None shares them.

    Returns:
        The copy, in eval mode.

    Raises:
        ModelError: something in the module can't be copied.
    """
    # deepcopy takes what its memo holds for the copy.
    memo: dict[int, object] = {}
    modules = {id(module) for module in model.modules()}
    for module in model.modules():
        for hook in (*module._forward_pre_hooks.values(), *module._forward_hooks.values()):
            if not _refers_to(hook, modules):
                memo[id(hook)] = hook
        for parameter in module._parameters.values():
            if parameter is not None:
                memo[id(parameter)] = _cast_parameter(parameter, dtype)
        # Buffers and plain attributes: weight_norm's weight is a non-leaf tensor.
        for tensor in (*module._buffers.values(), *vars(module).values()):
            if isinstance(tensor, torch.Tensor):
                memo.setdefault(id(tensor), _cast(tensor, dtype))
    try:
        try:
            copied = copy.deepcopy(model, dict(memo))
        except RuntimeError:  # a tensor computed from weights, in a list or dict
            copied = copy.deepcopy(model, _computed_tensors(model, dtype) | memo)
    except Exception as error:
        raise ModelError(
            f"{type(model).__name__} can't be copied ({type(error).__name__}: {error}). "
            "Pass inplace=True to optimize the model itself"
        ) from error
    return copied.eval()


def unmerge_disabled_adapters(model: torch.nn.Module) -> None:
    """Let layers of peft subtract adapters that are merged and disabled, as their next call would.

    In a copy that call writes to the shared weights, and the original subtracts them once more.
    """
    for module in model.modules():
        unmerge = getattr(module, "unmerge", None)
        # Of other classes these attributes may be methods.
        disabled, merged = (getattr(module, name, None) for name in ("disable_adapters", "merged"))
        if callable(unmerge) and disabled is True and merged is True:
            unmerge()


def cast_copy(model: torch.nn.Module, dtype: torch.dtype) -> torch.nn.Module:
    """Cast a copy as Transformers' ``from_pretrained`` does: tables that aren't saved stay.

    With frequencies in bfloat16, angles are wrong by up to one radian at position 512.
    """
    copied = shared_copy(model, dtype)
    for original, cast in zip(model.modules(), copied.modules(), strict=True):
        for name in original._non_persistent_buffers_set:
            cast._buffers[name] = original._buffers[name]
    return copied


def _computed_tensors(model: torch.nn.Module, dtype: torch.dtype | None) -> dict[int, object]:
    """Map the tensors that only autograd can copy to ones that share their memory, or cast ones."""
    kept = tensors([list(vars(module).values()) for module in model.modules()])
    return {id(tensor): _cast(tensor.detach(), dtype) for tensor in kept if not tensor.is_leaf}


def _refers_to(hook: object, modules: Set[int]) -> bool:
    """Whether a hook is a method of one of the modules, or a partial call with one."""
    if isinstance(hook, functools.partial):
        arguments = (hook.func, *hook.args, *hook.keywords.values())
        return any(id(a) in modules or _refers_to(a, modules) for a in arguments)
    return id(getattr(hook, "__self__", None)) in modules


def _cast(tensor: torch.Tensor, dtype: torch.dtype | None) -> torch.Tensor:
    if dtype is None or not tensor.is_floating_point():
        return tensor
    return tensor.detach().to(dtype)


def _cast_parameter(parameter: torch.nn.Parameter, dtype: torch.dtype | None) -> torch.nn.Parameter:
    if dtype is None or not parameter.is_floating_point() or parameter.dtype == dtype:
        return parameter
    return torch.nn.Parameter(parameter.detach().to(dtype), parameter.requires_grad)
