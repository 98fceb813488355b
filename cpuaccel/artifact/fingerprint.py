"""Which machine and which versions an artifact was made with."""

from collections.abc import Iterable

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from pydantic import BaseModel, ConfigDict

import cpuaccel
from cpuaccel.binding import bind_here
from cpuaccel.hostinfo import host
from cpuaccel.pipeline import Pipeline
from cpuaccel.plugins import plugin_host

_ABSENT = "absent"


class Fingerprint(BaseModel):
    """What the figures of an artifact, and its TorchScript, hold for.

    Attributes:
        machine: as in ``Host``, and so ``processor``, ``isa``, ``torch_isa`` and ``python``.
        packages: versions of cpuaccel, torch and whatever else the pipeline or the model uses;
            ``absent`` for what is not installed.
        plugins: for each backend of the pipeline the plugin that offers it, and its version.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    machine: str
    processor: str
    isa: tuple[str, ...]
    torch_isa: str
    python: str
    packages: dict[str, str]
    plugins: dict[str, str]

    def differences(self, other: "Fingerprint") -> list[str]:
        """What is another here: sentences without a full stop."""
        found = []
        for name in ("machine", "processor", "torch_isa", "python"):
            saved, here = getattr(self, name), getattr(other, name)
            if saved != here:
                found.append(f"{name} was {saved}, here it is {here}")
        if lost := sorted({*self.isa} - {*other.isa}):
            found.append(f"the processor lacks {', '.join(lost)}")
        if won := sorted({*other.isa} - {*self.isa}):
            found.append(f"the processor has {', '.join(won)} besides")
        for kind in ("packages", "plugins"):
            saved_of, here_of = getattr(self, kind), getattr(other, kind)
            for name in sorted({*saved_of, *here_of}):
                saved, here = saved_of.get(name, _ABSENT), here_of.get(name, _ABSENT)
                if saved != here:
                    found.append(f"{name} was {saved}, here it is {here}")
        return found


def fingerprint(pipeline: Pipeline, packages: Iterable[str]) -> Fingerprint:
    """What matters here for a pipeline.

    Args:
        pipeline: what its backends require is noted.
        packages: further distributions: those that the model's own code is in.

    Raises:
        PipelineError: a backend is not offered here, or an option is none of its.
    """
    (bound,) = bind_here(pipeline)
    here, origins = host(), plugin_host().origins
    backends = [step.backend for step in bound]
    names = {"torch", *packages} | {
        canonicalize_name(Requirement(text).name)
        for backend in backends
        for alternative in backend.requires
        for text in alternative
    }
    return Fingerprint(
        machine=here.machine,
        processor=here.processor,
        isa=tuple(sorted(here.isa)),
        torch_isa=here.torch_isa,
        python=here.python,
        packages={
            "cpuaccel": cpuaccel.__version__,
            **{name: here.packages.get(name, _ABSENT) for name in sorted(names)},
        },
        plugins={backend.name: origins[backend.name] for backend in backends},
    )
