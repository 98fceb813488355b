"""Sending a model and its inputs to another process, whole."""

import pickle
import types
from collections.abc import Callable, Sequence
from typing import IO, Any

import torch
from torch.nn.utils import parametrize

from cpuaccel.checks.probes import Probe
from cpuaccel.errors import ModelError
from cpuaccel.model.output import Leaf

try:
    import cloudpickle as _pickle
except ImportError:  # an extra: without it classes must be in modules that can be imported
    _pickle = pickle


def ship(model: torch.nn.Module, references: Sequence[Probe], file: IO[bytes]) -> None:
    """Write a model, its batches and what it answers to them.

    Args:
        model: the original, as it is.
        references: batches and answers.
        file: is written from its beginning.

    Raises:
        ModelError: something in the model can't be sent; says what to do.
    """
    try:
        torch.save(
            {
                "model": model,
                "references": [
                    (p.name, p.inputs, [tuple(leaf) for leaf in p.reference]) for p in references
                ],
            },
            file,
            pickle_module=_sender(),
            pickle_protocol=pickle.HIGHEST_PROTOCOL,
        )
    except Exception as error:  # whatever the model's own pickling raises
        raise ModelError(
            f"{type(model).__name__} was to be tuned, which sends it to a process for each "
            f"candidate, but it can't be pickled ({type(error).__name__}: {error}). "
            + (
                "Define its classes and functions in a module, or pip install cloudpickle"
                if _pickle is pickle
                else "Keep out of it what can't be, such as open files and locks"
            )
        ) from error
    file.flush()


def receive(file: IO[bytes]) -> tuple[torch.nn.Module, list[Probe]]:
    """Read what ``ship`` wrote. To be trusted no more than who wrote it: unpickling runs code.

    Returns:
        The model, and the references, whose outputs are flat lists of tensors.
    """
    file.seek(0)
    held = torch.load(file, weights_only=False)
    return held["model"], [
        Probe(name, inputs, [tensor for _, tensor in found], [Leaf(*leaf) for leaf in found])
        for name, inputs, found in held["references"]
    ]


def _sender() -> Any:
    """What ``torch.save`` takes for the pickle module: cloudpickle's or pickle's own, and more.

    Parametrized modules, such as Wav2Vec2's with weight norm, refuse to be pickled: their classes
    are made on the fly. Here they are sent as the class that they were and the parametrizations.
    """

    class Sender(_pickle.Pickler):  # type: ignore[misc]
        def reducer_override(self, given: object) -> object:
            if isinstance(given, torch.nn.Module) and parametrize.is_parametrized(given):
                kind = parametrize.type_before_parametrizations(given)
                return _parametrized, (kind, given.__dict__)
            more: Callable[[object], object] | None = getattr(super(), "reducer_override", None)
            return NotImplemented if more is None else more(given)

    module = types.ModuleType("pickle")
    module.Pickler = Sender  # type: ignore[attr-defined]
    return module


def _parametrized(kind: type[torch.nn.Module], state: dict[str, object]) -> torch.nn.Module:
    """Make a parametrized module of its parts.

    torch offers no other way: its public functions begin with a plain module, and would compute
    the originals of the weights anew.
    """
    module = kind.__new__(kind)
    module.__dict__.update(state)
    parametrize._inject_new_class(module)
    for name in module.parametrizations:  # type: ignore[union-attr]
        parametrize._inject_property(module, name)
    return module
