"""The fingerprint of a decision: all that it depends on."""

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
    """All that a decision depends on.

    Values of weights and inputs are not included: speed does not depend on them, and outputs are
    compared whenever a decision is used.
    """

    cores: int
    options: dict[str, str]  # the backends' defaults
    model: dict[str, str]
    request: dict[str, str]


def take_fingerprint(
    model: torch.nn.Module, workload: Workload, request: Request, host: Host, plugins: PluginHost
) -> TuningFingerprint:
    """Return the fingerprint of a decision that is made now."""
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
            **({} if request.generate is None else {"generate": _digest(request.generate)}),
        },
    )


def key_of(fingerprint: Fingerprint, request: Request) -> str:
    """Return a digest of a fingerprint, and of the time in which candidates had to be measured."""
    return _digest([fingerprint.model_dump(), request.budget, request.time_limit])


def _options(plugins: PluginHost) -> dict[str, str]:
    described = {}
    for name, backend in sorted(plugins.backends.items()):
        try:
            options = backend.Options().model_dump(mode="json")
        except ValidationError:  # with a required option, not tried
            continue
        if options:
            described[name] = ", ".join(f"{option}={value}" for option, value in options.items())
    return described


def _config(model: torch.nn.Module) -> str:
    to_dict = getattr(getattr(model, "config", None), "to_dict", None)
    if not callable(to_dict):
        return "none"
    config = {k: v for k, v in to_dict().items() if k not in ("_name_or_path", "name_or_path")}
    # to_dict omits the attention implementation.
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
