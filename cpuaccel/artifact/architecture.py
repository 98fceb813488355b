"""Making a Transformers model of its configuration, by Transformers' own registry and code."""

import importlib
import json
import re
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from cpuaccel.artifact.record import Model
from cpuaccel.artifact.tensors import mismatch
from cpuaccel.errors import describe_error

LARGEST = 10**6
"""Largest integer in a configuration, or the number of the weights' elements if that is more."""

_CHOICES = re.compile(r"_.*|auto_map|.*_implementation|.*dtype|quantization_config|.*name_or_path")
"""Settings that may name code or files to fetch, or that are not the architecture's."""

_ATTENTION = ("eager", "sdpa")


class CannotMakeError(Exception):
    """Transformers alone can't make this model; says why."""


def describe(
    model: torch.nn.Module, tensors: Mapping[str, torch.Tensor], tied: Mapping[str, str]
) -> tuple[Model, dict[str, object] | None]:
    """How ``make`` gets a model like this one.

    Returns:
        The description, and the configuration; without one the caller has to make the model.
    """
    name = type(model).__name__
    try:
        transformers = sys.modules.get("transformers")
        if transformers is None or not isinstance(model, transformers.PreTrainedModel):
            raise CannotMakeError("it is no model of Transformers")
        config: Any = model.config
        attention = getattr(config, "_attn_implementation", None)
        if attention not in (None, *_ATTENTION):
            raise CannotMakeError(f"its attention is {attention}")
        described = Model(name=name, model_type=config.model_type, attention=attention)
        written = _architecture(json.loads(config.to_json_string(use_diff=False)), tensors)
        if _registered(described) is not type(model):
            raise CannotMakeError("its class is none of Transformers' own")
        _sketch(described, written, tensors, tied)
    except CannotMakeError as error:
        return Model(name=name, reason=str(error)), None
    return described, written


def make(
    described: Model,
    config: object,
    tensors: Mapping[str, torch.Tensor],
    tied: Mapping[str, str],
) -> torch.nn.Module:
    """Make the model, with weights still to be put into it, in eval mode.

    Made without memory for weights first: only if it has just the weights that there are, it is
    made for good. So a configuration can't ask for more memory than its weights take.

    Raises:
        CannotMakeError: the configuration is none, or another model's than the weights.
    """
    if not isinstance(config, dict):
        raise CannotMakeError("the configuration is no table")
    try:
        importlib.import_module("transformers")
    except ImportError as error:
        raise CannotMakeError(f"transformers can't be imported ({error})") from None
    architecture = _architecture(config, tensors)
    _sketch(described, architecture, tensors, tied)
    return _build(described, architecture, len(tensors)).eval()


def _sketch(
    described: Model,
    config: Mapping[str, object],
    tensors: Mapping[str, torch.Tensor],
    tied: Mapping[str, str],
) -> None:
    """Make the model on torch's device ``meta``, and hold it against the weights."""
    if not hasattr(torch.nn.modules.module, "register_module_module_registration_hook"):
        raise CannotMakeError("that takes torch 2.0 or newer")
    with torch.device("meta"):
        sketch = _build(described, config, len(tensors))
    if problem := mismatch(sketch, tensors, tied):
        raise CannotMakeError(f"of its configuration comes another model: its weights {problem}")


def _build(described: Model, config: Mapping[str, object], weights: int) -> torch.nn.Module:
    transformers: Any = importlib.import_module("transformers")
    model_class = _registered(described)
    attention = {} if described.attention is None else {"attn_implementation": described.attention}
    try:
        with torch.random.fork_rng(devices=[]), _at_most(10 * weights + 1000):
            made = transformers.AutoConfig.for_model(described.model_type, **config, **attention)
            model: torch.nn.Module = model_class(made)
            return model
    except CannotMakeError:
        raise
    except Exception as error:  # Transformers raises what it likes for a configuration
        raise CannotMakeError(f"making it raised {describe_error(error)[:200]}") from None


def _registered(described: Model) -> Any:
    """The class that Transformers itself registers for an architecture under a name."""
    transformers: Any = importlib.import_module("transformers")
    registry = importlib.import_module("transformers.models.auto.modeling_auto")
    names: set[str] = set()
    for table, mapping in vars(registry).items():
        if table.endswith("_MAPPING_NAMES"):
            named = mapping.get(described.model_type, ())
            names |= {named} if isinstance(named, str) else set(named)
    found = getattr(transformers, described.name, None) if described.name in names else None
    if not (isinstance(found, type) and issubclass(found, transformers.PreTrainedModel)):
        raise CannotMakeError(
            f"transformers {transformers.__version__} registers no class {described.name!r} for "
            f"{described.model_type!r}"
        )
    return found


def _architecture(config: object, tensors: Mapping[str, torch.Tensor]) -> dict[str, object]:
    """A configuration's settings of the architecture, bounded; other settings are left out."""
    most = max(LARGEST, sum(tensor.numel() for tensor in tensors.values()))

    def bounded(value: object, key: str) -> object:
        if isinstance(value, dict):
            return {
                k: False if k == "use_pretrained_backbone" else bounded(v, k)
                for k, v in value.items()
                if not _CHOICES.fullmatch(k)
            }
        if isinstance(value, list):
            return [bounded(member, key) for member in value]
        if isinstance(value, int) and abs(value) > most:
            raise CannotMakeError(f"its configuration has a {key} of more than {most}")
        if key == "backbone" and value is not None:
            raise CannotMakeError("its configuration names a backbone to be fetched")
        return value

    try:
        found = bounded(config, "configuration")
    except RecursionError:
        raise CannotMakeError(
            "its configuration is nested too deeply or holds no numbers"
        ) from None
    assert isinstance(found, dict)
    found.pop("model_type", None)
    found.pop("transformers_version", None)
    return found


@contextmanager
def _at_most(count: int) -> Iterator[None]:
    """Stop a model that is being made in this thread once it has more modules and weights."""
    hooks = torch.nn.modules.module
    thread, left = threading.get_ident(), count

    def counted(*_: object) -> None:
        nonlocal left
        if threading.get_ident() == thread:
            left -= 1
            if left < 0:
                raise CannotMakeError("of its configuration comes a model with far more weights")

    handles = [
        hooks.register_module_module_registration_hook(counted),
        hooks.register_module_parameter_registration_hook(counted),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
