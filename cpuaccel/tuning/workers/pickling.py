"""Pickling a model with its inputs and outputs for the worker processes."""

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
except ImportError:  # optional: without it classes must be importable
    _pickle = pickle


def dump_model(model: torch.nn.Module, references: Sequence[Probe], file: IO[bytes]) -> None:
    """Write a model, its batches and its outputs to an empty file."""
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
    except Exception as error:  # pickling may raise anything
        raise ModelError(
            f"{type(model).__name__} can't be pickled for the worker processes "
            f"({type(error).__name__}: {error}). "
            + (
                "Define its classes and functions in a module, or pip install cloudpickle"
                if _pickle is pickle
                else "Remove members that can't be pickled, such as open files and locks"
            )
        ) from error
    file.flush()


def load_model(file: IO[bytes]) -> tuple[torch.nn.Module, list[Probe]]:
    """Read a model and references, with flat outputs. Unpickling runs code: trusted files only."""
    file.seek(0)
    content = torch.load(file, weights_only=False)
    return content["model"], [
        Probe(name, inputs, [tensor for _, tensor in output], [Leaf(*leaf) for leaf in output])
        for name, inputs, output in content["references"]
    ]


def _sender() -> Any:
    """Return a pickle module for ``torch.save`` that supports parametrized modules."""

    class Sender(_pickle.Pickler):  # type: ignore[misc]
        def reducer_override(self, value: object) -> object:
            # Its class is created at run time (Wav2Vec2's weight norm) and can't be pickled.
            if isinstance(value, torch.nn.Module) and parametrize.is_parametrized(value):
                kind = parametrize.type_before_parametrizations(value)
                return _parametrized, (kind, value.__dict__)
            more: Callable[[object], object] | None = getattr(super(), "reducer_override", None)
            return NotImplemented if more is None else more(value)

    module = types.ModuleType("pickle")
    module.Pickler = Sender  # type: ignore[attr-defined]
    return module


def _parametrized(kind: type[torch.nn.Module], state: dict[str, object]) -> torch.nn.Module:
    """Restore from parts: torch's public functions would recompute the original weights."""
    module = kind.__new__(kind)
    module.__dict__.update(state)
    parametrize._inject_new_class(module)
    for name in module.parametrizations:  # type: ignore[union-attr]
        parametrize._inject_property(module, name)
    return module
