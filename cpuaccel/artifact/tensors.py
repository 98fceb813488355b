"""Saving and restoring a model's parameters and buffers, non-persistent buffers included."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch

from cpuaccel.errors import ArtifactError

_SHOWN = 3
"""Names of tensors in an error."""

_UNTYPED = hasattr(torch.Tensor, "untyped_storage")  # new in torch 2.0, which deprecates `storage`


@dataclass(frozen=True)
class Slot:
    """A parameter or buffer of a module."""

    name: str
    module: torch.nn.Module
    key: str
    tensor: torch.Tensor


class WeightsMismatchError(Exception):
    """Tensors that do not fit a model; the message says why, without a subject."""


def slots(model: torch.nn.Module) -> Iterator[Slot]:
    """Iterate over all parameters and buffers, each shared tensor once for every name."""
    for prefix, module in model.named_modules(remove_duplicate=False):
        for tensors in (module._parameters, module._buffers):
            for key, tensor in tensors.items():
                if tensor is not None:
                    yield Slot(f"{prefix}.{key}" if prefix else key, module, key, tensor)


def collect_tensors(model: torch.nn.Module) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Return each tensor once, by name, and the name used for each of its other names."""
    tensors: dict[str, torch.Tensor] = {}
    tied: dict[str, str] = {}
    first: dict[tuple[object, ...], str] = {}
    for slot in slots(model):
        tensor = slot.tensor.detach()
        if not _is_plain(tensor):
            raise ArtifactError(
                f"cannot save {type(model).__name__}: {slot.name} must be a dense CPU tensor, got "
                f"{type(tensor).__name__} ({tensor.layout}, {tensor.dtype}, {tensor.device}). "
                "Convert it before optimizing"
            )
        memory = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        identity = memory if tensor.numel() else (id(slot.tensor),)
        if identity in first:
            tied[slot.name] = first[identity]
            continue
        first[identity] = slot.name
        tensors[slot.name] = tensor
    return tensors, tied


def write_tensors(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Write dense tensors to a safetensors file."""
    path.touch()
    mode = path.stat().st_mode  # safetensors replaces the file by one that only its owner can read
    safetensors.torch.save_file(_own_storages(tensors), path)
    path.chmod(mode)


def read_tensors(data: bytes) -> dict[str, torch.Tensor]:
    """Parse a safetensors file."""
    try:
        return safetensors.torch.load(data)
    except Exception as error:  # the type for a dtype that this torch lacks is not documented
        raise ValueError(f"{type(error).__name__}: {str(error)[:200]}") from None


def check_tensors(
    model: torch.nn.Module, tensors: Mapping[str, torch.Tensor], tied: Mapping[str, str]
) -> None:
    """Check that stored tensors fit a model: names, shapes, kinds of dtypes and what is shared."""
    expected = {slot.name: slot for slot in slots(model)}
    stored = {**{name: name for name in tensors}, **tied}
    problems = []
    if missing := [name for name in expected if name not in stored]:
        problems.append(f"lack {_shown(missing)}")
    if unexpected := [name for name in stored if name not in expected]:
        problems.append(f"have the unexpected {_shown(unexpected)}")
    if dangling := [name for name, other in tied.items() if other not in tensors]:
        problems.append(f"lack the tensor that {_shown(dangling)} shares")
    if problems:
        raise WeightsMismatchError(" and ".join(problems))
    sources: dict[int, str] = {}
    for name, slot in expected.items():
        saved, own = tensors[stored[name]], slot.tensor
        if own.shape != saved.shape and isinstance(own, torch.nn.Parameter):
            raise WeightsMismatchError(
                f"have {name} of shape {list(saved.shape)}, not {list(own.shape)}"
            )
        if own.is_floating_point() != saved.is_floating_point():
            raise WeightsMismatchError(f"have {name} of {saved.dtype}, not {own.dtype}")
        source = sources.setdefault(id(own), stored[name])
        if source != stored[name]:
            raise WeightsMismatchError(
                f"have separate tensors for {name} and {source}, which the model shares"
            )


@contextmanager
def assign_tensors(
    model: torch.nn.Module, tensors: Mapping[str, torch.Tensor], tied: Mapping[str, str]
) -> Iterator[None]:
    """Put checked tensors into a model, in their dtypes; undo that if the body raises.

    Parameters without memory (on "meta") are replaced by new ones.
    """
    before: list[tuple[Slot, torch.Tensor]] = []
    made: dict[int, torch.nn.Parameter] = {}
    try:
        for slot in list(slots(model)):
            saved = tensors[tied.get(slot.name, slot.name)]
            before.append((slot, slot.tensor.data))
            if not isinstance(slot.tensor, torch.nn.Parameter):
                slot.module._buffers[slot.key] = saved
            elif slot.tensor.is_meta:
                new = torch.nn.Parameter(saved, slot.tensor.requires_grad)
                slot.module._parameters[slot.key] = made.setdefault(id(slot.tensor), new)
            else:
                slot.tensor.data = saved
        yield
    except BaseException:
        for slot, data in reversed(before):
            if isinstance(slot.tensor, torch.nn.Parameter):
                slot.module._parameters[slot.key] = slot.tensor
                slot.tensor.data = data
            else:
                slot.module._buffers[slot.key] = slot.tensor
        raise


def _is_plain(tensor: torch.Tensor) -> bool:
    return (
        type(tensor) is torch.Tensor
        and tensor.layout is torch.strided
        and tensor.device.type == "cpu"
        and not tensor.is_quantized
    )


def _own_storages(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return contiguous tensors of which no two share a storage, which safetensors requires."""
    own: dict[str, torch.Tensor] = {}
    taken: set[int] = set()
    for name, tensor in tensors.items():
        tensor = tensor.detach().contiguous()
        storage = tensor.untyped_storage() if _UNTYPED else tensor.storage()  # type: ignore[no-untyped-call]
        size = tensor.numel() * tensor.element_size()
        if storage.nbytes() != size or storage.data_ptr() in taken:
            tensor = tensor.clone()
        taken.add(storage.data_ptr())
        own[name] = tensor
    return own


def _shown(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if names[_SHOWN:] else ""
    return ", ".join(names[:_SHOWN]) + more
