"""What a decision depends on: where any of it has changed, the decision may be wrong."""

import hashlib
import itertools
import json
from collections.abc import Mapping

import torch
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from pydantic import ValidationError

from cpuaccel.hostinfo import Host
from cpuaccel.plugins import PluginHost
from cpuaccel.tuning.request import Request
from cpuaccel.tuning.workload import Workload

Fingerprint = dict[str, dict[str, str]]
"""Facts by name, in sections: host, versions, backends, model, request."""

ALWAYS = ("torch", "transformers", "cpuaccel")


def take_fingerprint(
    model: torch.nn.Module, workload: Workload, request: Request, host: Host, plugins: PluginHost
) -> Fingerprint:
    """Everything that a decision depends on.

    Of the weights only names, shapes and dtypes count: speed does not depend on their values, and
    the answers are compared anew whenever a decision is used.

    Args:
        model: the original.
        workload: what it is measured on; shapes and padding count, values don't.
        request: what is asked for, but for the budget.
        host: this machine and environment.
        plugins: the backends on offer: a new one may be the better choice.
    """
    return {
        "host": {
            "processor": host.processor,
            "machine": host.machine,
            "instructions": _digest(sorted(host.isa)),
            "torch_isa": host.torch_isa,
            "cores": str(host.cores),
        },
        "versions": {"python": host.python, **_versions(host, plugins)},
        "backends": _backends(plugins),
        "model": {
            "class": f"{type(model).__module__}.{type(model).__qualname__}",
            "weights": _digest(
                [
                    (name, list(tensor.shape), str(tensor.dtype))
                    for name, tensor in itertools.chain(
                        model.named_parameters(), model.named_buffers()
                    )
                ]
            ),
            "config": _config(model),
        },
        "request": {
            "inputs": "; ".join(
                f"{_inputs(batch)} ({shape})"
                for batch, shape in zip(workload.batches, workload.shapes)
            ),
            "weights": ", ".join(f"{weight:.4g}" for weight in workload.weights),
            "target": request.target,
            "precisions": ", ".join(request.precisions),
            "threads": str(request.threads or torch.get_num_threads()),
            "tolerance": "default" if request.tolerance is None else f"{request.tolerance:g}",
            "metric": f"at most {request.max_drop:g} less" if request.metric else "none",
        },
    }


def changes(before: Mapping[str, Mapping[str, str]], now: Fingerprint) -> list[str]:
    """Each fact that is no longer what it was, as a sentence without a full stop."""
    found = []
    for section in dict.fromkeys((*before, *now)):
        was, is_ = before.get(section, {}), now.get(section, {})
        for name in dict.fromkeys((*was, *is_)):
            if was.get(name) != is_.get(name):
                found.append(
                    f"{section}.{name} was {was.get(name, 'absent')}, is {is_.get(name, 'absent')}"
                )
    return found


def key_of(fingerprint: Fingerprint) -> str:
    """A short name for a fingerprint, the same in every process."""
    return _digest(fingerprint)[:32]


def _versions(host: Host, plugins: PluginHost) -> dict[str, str]:
    named = {
        Requirement(text).name
        for backend in plugins.backends.values()
        for requirements in backend.requires
        for text in requirements
    }
    names = sorted({canonicalize_name(name) for name in (*ALWAYS, *named)})
    return {name: host.packages[name] for name in names if name in host.packages}


def _backends(plugins: PluginHost) -> dict[str, str]:
    found = {}
    for name, backend in sorted(plugins.backends.items()):
        try:
            options = backend.Options().model_dump(mode="json")
        except ValidationError:  # one that has to be given; it is not tried
            options = {}
        told = "".join(f", {option}={value}" for option, value in options.items())
        found[name] = f"{plugins.origins[name]}{told}"
    return found


def _config(model: torch.nn.Module) -> str:
    to_dict = getattr(getattr(model, "config", None), "to_dict", None)
    if not callable(to_dict):
        return "none"
    config = {k: v for k, v in to_dict().items() if k not in ("_name_or_path", "name_or_path")}
    # How eager computes attention; a configuration leaves it out of what it writes.
    attention = getattr(model.config, "_attn_implementation", None)
    return _digest([config, attention])


def _inputs(batch: Mapping[str, object]) -> str:
    return ", ".join(
        f"{name} {str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
        if isinstance(value, torch.Tensor)
        else f"{name}={value!r}"
        for name, value in batch.items()
    )


def _digest(data: object) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True, default=str).encode()).hexdigest()[:32]
