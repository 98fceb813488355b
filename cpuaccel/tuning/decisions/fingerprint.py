"""What a decision depends on: where any of it has changed, the decision may be wrong."""

import hashlib
import itertools
import json
from collections.abc import Mapping

import torch
from pydantic import ValidationError

from cpuaccel.model.precision import dtype_name
from cpuaccel.plugin.fingerprint import Fingerprint
from cpuaccel.plugin.host import Host
from cpuaccel.plugin.manager import PluginHost
from cpuaccel.tuning.request import Request
from cpuaccel.tuning.workload import Workload


class TuningFingerprint(Fingerprint):
    """What a decision depends on.

    Of the weights only names, shapes and dtypes count: speed does not depend on their values, and
    the answers are compared anew whenever a decision is used.

    Attributes:
        cores: as in ``Host``.
        options: of each backend what it does by default: that is what a search tries.
        model: its class, configuration and weights.
        request: what it is measured on, where shapes and padding count and values don't, and what
            is asked for but the budget.
    """

    cores: int
    options: dict[str, str]
    model: dict[str, str]
    request: dict[str, str]


def take_fingerprint(
    model: torch.nn.Module, workload: Workload, request: Request, host: Host, plugins: PluginHost
) -> TuningFingerprint:
    """Everything that a decision depends on.

    Args:
        model: the original.
        workload: what it is measured on.
        request: what is asked for.
        host: this machine and environment.
        plugins: the backends on offer: a new one may be the better choice.
    """
    tolerance = request.settings.tolerance
    return TuningFingerprint(
        **dict(Fingerprint.from_host(host, plugins, plugins.backends, ["transformers"])),
        cores=host.cores,
        options=_options(plugins),
        model={
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
        request={
            "inputs": "; ".join(
                f"{_inputs(batch)} ({shape})"
                for batch, shape in zip(workload.batches, workload.shapes)
            ),
            "weights": ", ".join(f"{weight:.4g}" for weight in workload.weights),
            "target": request.target,
            "precisions": ", ".join(request.precisions),
            "threads": str(request.threads or torch.get_num_threads()),
            "tolerance": "default" if tolerance is None else f"{tolerance:g}",
            "metric": f"at most {request.max_drop:g} less" if request.metric else "none",
        },
    )


def key_of(fingerprint: Fingerprint) -> str:
    """A short name for a fingerprint, the same in every process."""
    return _digest(fingerprint.model_dump())


def _options(plugins: PluginHost) -> dict[str, str]:
    found = {}
    for name, backend in sorted(plugins.backends.items()):
        try:
            options = backend.Options().model_dump(mode="json")
        except ValidationError:  # one that has to be given; it is not tried
            continue
        if options:
            found[name] = ", ".join(f"{option}={value}" for option, value in options.items())
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
        f"{name} {dtype_name(value.dtype)}{list(value.shape)}"
        if isinstance(value, torch.Tensor)
        else f"{name}={value!r}"
        for name, value in batch.items()
    )


def _digest(data: object) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True, default=str).encode()).hexdigest()[:32]
