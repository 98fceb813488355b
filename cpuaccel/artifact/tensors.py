"""A model's tensors out of it and into it: parameters, and buffers whether persistent or not."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch

from cpuaccel.errors import ArtifactError

_LISTED = 3

_UNTYPED = hasattr(torch.Tensor, "untyped_storage")  # from torch 2.0 on; then the other warns


@dataclass(frozen=True)
class Slot:
    """One place in a module for a tensor.

    Attributes:
        name: as in a state dict.
        module: the module.
        key: the name in that module.
        tensor: what is there.
    """

    name: str
    module: torch.nn.Module
    key: str
    tensor: torch.Tensor


def slots(model: torch.nn.Module) -> Iterator[Slot]:
    """All places of a model that hold a parameter or a buffer, those that share one included."""
    for prefix, module in model.named_modules(remove_duplicate=False):
        for tensors in (module._parameters, module._buffers):
            for key, tensor in tensors.items():
                if tensor is not None:
                    yield Slot(f"{prefix}.{key}" if prefix else key, module, key, tensor)


def take(model: torch.nn.Module) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """A model's tensors by name, and for each further name of one of them the first.

    Raises:
        ArtifactError: one of them is nothing that safetensors can hold.
    """
    tensors: dict[str, torch.Tensor] = {}
    tied: dict[str, str] = {}
    first: dict[tuple[object, ...], str] = {}
    for slot in slots(model):
        tensor = slot.tensor.detach()
        if not _is_plain(tensor):
            raise ArtifactError(
                f"saving a {type(model).__name__} was asked for, but its {slot.name} is a "
                f"{type(tensor).__name__} ({tensor.layout}, {tensor.dtype}, on {tensor.device}), "
                "and an artifact holds plain dense tensors in main memory. Convert it before "
                "optimizing"
            )
        place = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        identity = place if tensor.numel() else (id(slot.tensor),)
        if identity in first:
            tied[slot.name] = first[identity]
            continue
        first[identity] = slot.name
        tensors[slot.name] = tensor
    return tensors, tied


def write_tensors(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Write dense tensors to a file of safetensors.

    Raises:
        safetensors.SafetensorError: the file can't be written.
    """
    path.touch()
    mode = path.stat().st_mode  # safetensors puts a file in its place that nobody else may read
    safetensors.torch.save_file({n: _alone(t) for n, t in tensors.items()}, path)
    path.chmod(mode)


def read_tensors(data: bytes) -> dict[str, torch.Tensor]:
    """Tensors of a file of safetensors.

    Raises:
        ValueError: it is none; says what is wrong with it.
    """
    try:
        return safetensors.torch.load(data)
    except Exception as error:  # what it raises for a dtype that this torch lacks is not documented
        raise ValueError(f"{type(error).__name__}: {str(error)[:200]}") from None


def mismatch(
    model: torch.nn.Module, tensors: Mapping[str, torch.Tensor], tied: Mapping[str, str]
) -> str | None:
    """Why tensors are not this model's, if they are not."""
    held = {slot.name: slot for slot in slots(model)}
    named = {**{name: name for name in tensors}, **tied}
    problems = []
    if missing := [name for name in held if name not in named]:
        problems.append(f"lack {_listed(missing)}")
    if surplus := [name for name in named if name not in held]:
        problems.append(f"have {_listed(surplus)} besides")
    if lost := [name for name, other in tied.items() if other not in tensors]:
        problems.append(f"lack what {_listed(lost)} shares")
    if problems:
        return " and ".join(problems)
    sources: dict[int, str] = {}
    for name, slot in held.items():
        saved = tensors[named[name]]
        own = slot.tensor
        if own.shape != saved.shape and isinstance(own, torch.nn.Parameter):
            return f"have {name} of shape {list(saved.shape)}, not {list(own.shape)}"
        if own.is_floating_point() != saved.is_floating_point():
            return f"have {name} of {saved.dtype}, not {own.dtype}"
        if sources.setdefault(id(own), named[name]) != named[name]:
            return f"have {name} apart from {sources[id(own)]}, with which the model shares it"
    return None


@contextmanager
def put(
    model: torch.nn.Module, tensors: Mapping[str, torch.Tensor], tied: Mapping[str, str]
) -> Iterator[None]:
    """Give a model its tensors, which ``mismatch`` found to be its own; in their dtypes.

    If anything is raised before leaving, the model is as it was.
    """
    before: list[tuple[Slot, torch.Tensor]] = []
    try:
        for slot in list(slots(model)):
            saved = tensors[tied.get(slot.name, slot.name)]
            before.append((slot, slot.tensor.data))
            if isinstance(slot.tensor, torch.nn.Parameter):
                slot.tensor.data = saved
            else:
                slot.module._buffers[slot.key] = saved
        yield
    except BaseException:
        for slot, data in reversed(before):
            if isinstance(slot.tensor, torch.nn.Parameter):
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


def _alone(tensor: torch.Tensor) -> torch.Tensor:
    """Contiguous, and in a storage of its own: safetensors refuses what overlaps."""
    tensor = tensor.detach().contiguous()
    storage = tensor.untyped_storage() if _UNTYPED else tensor.storage()  # type: ignore[no-untyped-call]
    whole = tensor.numel() * tensor.element_size()
    return tensor if storage.nbytes() == whole else tensor.clone()


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_LISTED]) + (
        f" and {len(names) - _LISTED} more" if names[_LISTED:] else ""
    )
