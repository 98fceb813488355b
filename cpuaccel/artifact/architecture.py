"""Making a Transformers model from its configuration, with the installed Transformers."""

import importlib
import json
import re
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from cpuaccel.artifact.record import Model, Record
from cpuaccel.artifact.tensors import WeightsMismatchError, check_tensors
from cpuaccel.checks.hooks import callers_hooks
from cpuaccel.errors import describe_error
from cpuaccel.model.output import tensors as all_tensors

LARGEST = 10**6
"""Largest integer accepted in a configuration, unless the weights have more elements."""

_IGNORED = re.compile(r"_.*|auto_map|.*_implementation|.*dtype|quantization_config|.*name_or_path")
"""Settings that may name code or downloads, or that do not describe the architecture."""

_ATTENTION = ("eager", "sdpa")

_SAVED = ("_parameters", "_buffers")


class ArchitectureError(Exception):
    """A model that Transformers alone can't make from a configuration."""


def describe_architecture(
    model: torch.nn.Module, tensors: Mapping[str, torch.Tensor], tied: Mapping[str, str]
) -> tuple[Model, dict[str, object] | None]:
    """Describe a model so that ``make_model`` can make it again."""
    name = type(model).__name__
    try:
        transformers = sys.modules.get("transformers")
        if transformers is None or not isinstance(model, transformers.PreTrainedModel):
            raise ArchitectureError("not a Transformers model")
        config: Any = model.config
        attention = getattr(config, "_attn_implementation", None)
        if attention not in (None, *_ATTENTION):
            raise ArchitectureError(f"its attention implementation is {attention}")
        described = Model(name=name, model_type=config.model_type, attention=attention)
        settings = _architecture(json.loads(config.to_json_string(use_diff=False)), tensors)
        if _registered(described) is not type(model):
            raise ArchitectureError("its class is not part of Transformers")
        _check_on_meta(described, settings, tensors, tied)
    except ArchitectureError as error:
        return Model(name=name, reason=str(error)), None
    return described, settings


def is_described(
    model: torch.nn.Module,
    record: Record,
    config: bytes | None,
    tensors: Mapping[str, torch.Tensor],
) -> bool:
    """Whether a model runs the code of the installed Transformers with this configuration."""
    if config is None or callers_hooks(model):
        return False
    for module in model.modules():
        package, _, _ = type(module).__module__.partition(".")
        if package not in ("torch", "transformers") or "forward" in vars(module):
            return False
    try:
        described = describe_architecture(model, tensors, record.tied)
        return described == (record.model, json.loads(config))
    except (ValueError, RecursionError):
        return False


def describe_generation(model: torch.nn.Module) -> dict[str, object]:
    """Describe how a Transformers model generates by default."""
    settings: dict[str, object] = json.loads(model.generation_config.to_json_string())  # type: ignore[union-attr,operator]
    return {name: value for name, value in settings.items() if not _IGNORED.fullmatch(name)}


def set_generation(model: torch.nn.Module, settings: object) -> None:
    """Let a Transformers model generate as ``describe_generation`` says."""
    transformers: Any = importlib.import_module("transformers")
    if not isinstance(settings, dict) or any(map(_IGNORED.fullmatch, settings)):
        raise ArchitectureError("the settings for generate must be a table of known names")
    try:
        model.generation_config = transformers.GenerationConfig.from_dict(settings)
    except Exception as error:  # Transformers raises any type for bad settings
        raise ArchitectureError(f"Transformers raised {describe_error(error)[:200]}") from None


def make_model(
    described: Model,
    config: object,
    tensors: Mapping[str, torch.Tensor],
    tied: Mapping[str, str],
) -> torch.nn.Module:
    """Make a model in eval mode: its weights have no memory, or else random values."""
    if not isinstance(config, dict):
        raise ArchitectureError(f"the configuration must be a table, got {type(config).__name__}")
    try:
        importlib.import_module("transformers")
    except ImportError as error:
        raise ArchitectureError(f"transformers can't be imported ({error})") from None
    architecture = _architecture(config, tensors)
    # Before any weights are allocated, so that no configuration needs more memory than they do.
    model = _check_on_meta(described, architecture, tensors, tied)
    # What is neither a parameter nor a buffer is not among the saved tensors.
    others = all_tensors(
        [
            [value for name, value in vars(module).items() if name not in _SAVED]
            for module in model.modules()
        ]
    )
    if any(tensor.is_meta for tensor in others):
        model = _build(described, architecture, len(tensors))
    return model.eval()


def _check_on_meta(
    described: Model,
    config: Mapping[str, object],
    tensors: Mapping[str, torch.Tensor],
    tied: Mapping[str, str],
) -> torch.nn.Module:
    if not hasattr(torch.nn.modules.module, "register_module_module_registration_hook"):
        raise ArchitectureError("it needs torch 2.0 or newer")
    with torch.device("meta"):
        model = _build(described, config, len(tensors))
    try:
        check_tensors(model, tensors, tied)
    except WeightsMismatchError as error:
        raise ArchitectureError(
            f"the config describes a different model: its weights {error}"
        ) from None
    return model


def _build(described: Model, config: Mapping[str, object], weights: int) -> torch.nn.Module:
    transformers: Any = importlib.import_module("transformers")
    model_class = _registered(described)
    attention = {} if described.attention is None else {"attn_implementation": described.attention}
    try:
        with torch.random.fork_rng(devices=[]), _at_most(10 * weights + 1000):
            made = transformers.AutoConfig.for_model(described.model_type, **config, **attention)
            model: torch.nn.Module = model_class(made)
            return model
    except ArchitectureError:
        raise
    except Exception as error:  # Transformers raises any type for a bad configuration
        raise ArchitectureError(f"Transformers raised {describe_error(error)[:200]}") from None


def _registered(described: Model) -> Any:
    """Look up a class by name among those that Transformers registers for an architecture."""
    transformers: Any = importlib.import_module("transformers")
    registry = importlib.import_module("transformers.models.auto.modeling_auto")
    names: set[str] = set()
    for table, mapping in vars(registry).items():
        if table.endswith("_MAPPING_NAMES"):
            registered = mapping.get(described.model_type, ())
            names |= {registered} if isinstance(registered, str) else set(registered)
    model_class = getattr(transformers, described.name, None) if described.name in names else None
    if not (
        isinstance(model_class, type) and issubclass(model_class, transformers.PreTrainedModel)
    ):
        raise ArchitectureError(
            f"transformers {transformers.__version__} has no class {described.name!r} for "
            f"{described.model_type!r}"
        )
    return model_class


def _architecture(config: object, tensors: Mapping[str, torch.Tensor]) -> dict[str, object]:
    most = max(LARGEST, sum(tensor.numel() for tensor in tensors.values()))

    def select(value: object, key: str) -> object:
        if isinstance(value, dict):
            return {
                k: False if k == "use_pretrained_backbone" else select(v, k)
                for k, v in value.items()
                if not _IGNORED.fullmatch(k)
            }
        if isinstance(value, list):
            return [select(member, key) for member in value]
        if isinstance(value, int) and abs(value) > most:
            raise ArchitectureError(
                f"{key} in the configuration must be at most {most}, got {str(value)[:40]}"
            )
        if key == "backbone" and value is not None:
            raise ArchitectureError("the configuration names a backbone to download")
        return value

    try:
        settings = select(config, "configuration")
    except RecursionError:
        raise ArchitectureError("the configuration is nested too deeply") from None
    assert isinstance(settings, dict)
    settings.pop("model_type", None)
    settings.pop("transformers_version", None)
    return settings


@contextmanager
def _at_most(count: int) -> Iterator[None]:
    """Raise once a model made in this thread registers more modules and weights than ``count``."""
    hooks = torch.nn.modules.module
    thread, left = threading.get_ident(), count

    def count_down(*_: object) -> None:
        nonlocal left
        if threading.get_ident() == thread:
            left -= 1
            if left < 0:
                raise ArchitectureError("the config describes a model with far more weights")

    handles = [
        hooks.register_module_module_registration_hook(count_down),
        hooks.register_module_parameter_registration_hook(count_down),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
