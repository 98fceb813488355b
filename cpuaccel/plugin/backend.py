"""The contract between cpuaccel and a backend: read this to write one."""

import enum
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Generic, TypeVar

import torch

from cpuaccel.model.released_weights import Release
from cpuaccel.model.signature import Signature
from cpuaccel.pipeline import Options, declare_options
from cpuaccel.plugin.host import Host
from cpuaccel.plugin.verdict import Verdict

Evidence = Mapping[str, int | float | str]
"""What shows that a backend took effect: counts and facts, by name."""


class Form(enum.StrEnum):
    """What a model is at one point of a pipeline.

    A ``MODULE`` is called like the original and returns what it returns. A ``SCRIPT``
    (TorchScript) and a ``COMPILED`` (any other callable) are called with the input tensors by
    name and return a flat tuple of the output's tensors; cpuaccel restores the original's output
    type from it.
    """

    MODULE = "module"
    SCRIPT = "script"
    COMPILED = "compiled"


OptionsT = TypeVar("OptionsT", bound=Options)


@dataclass(frozen=True)
class Context:
    """What a backend's ``apply`` may need besides the model.

    Attributes:
        host: this machine and environment.
        signature: how the model is called; ``signature.inputs`` are real example inputs.
        dtype: the precision asked for the whole pipeline, None to keep the model's own.
        inplace: whether the module given may be changed instead of copied.
        release: where the caller gives up the original's weights, what a backend calls with each
            that it holds in a layout of its own from then on, and with what gives it back; None
            where they are kept.
    """

    host: Host
    signature: Signature
    dtype: torch.dtype | None = None
    inplace: bool = False
    release: Release | None = None


@dataclass(frozen=True)
class Applied:
    """What ``apply`` returns.

    Attributes:
        model: the new model, in the form that the backend gives.
        evidence: what shows that it took: modules replaced, nodes fused.
        autocast: the dtype under whose autocast the model has to be called, if any.
    """

    model: Callable[..., object]
    evidence: Evidence = field(default_factory=dict)
    autocast: torch.dtype | None = None


class Backend(ABC, Generic[OptionsT]):
    """One way to optimize a model. Offered through the hook ``cpuaccel_backends``.

    Instances hold nothing but their options. Subclasses import their engine inside ``apply``
    only: importing some engines changes global state, and a mismatched one may end the process.

    Attributes:
        name: what users write: lower case, digits, underscores.
        summary: one line for ``cpuaccel plugins``.
        takes: the form of model that ``apply`` takes.
        gives: the form that it gives.
        before: names of backends that, where both are used, must come later than this one.
        excludes: names of backends that can't be in one pipeline with this one, each with a reason
            that ends in no full stop.
        requires: sets of PEP 508 requirements; meeting any one set is enough.
        needs_tensors: whether the model must take a tensor, so that there is a graph to follow.
        casts: whether ``apply`` itself brings the weights to ``context.dtype``; otherwise
            cpuaccel casts them before.
        tolerance: for a backend that computes more coarsely than the pipeline's precision: the
            largest difference accepted by default of a pipeline that it is applied in, relative
            to the largest magnitude in an output. 0 leaves it to the precision.
        Options: the model that validates the options.
        options: the options of this step.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    takes: ClassVar[Form]
    gives: ClassVar[Form]
    before: ClassVar[frozenset[str]] = frozenset()
    excludes: ClassVar[Mapping[str, str]] = {}
    requires: ClassVar[tuple[Sequence[str], ...]] = ()
    needs_tensors: ClassVar[bool] = False
    casts: ClassVar[bool] = False
    tolerance: ClassVar[float] = 0.0
    Options: ClassVar[type[Options]] = Options

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        declared, name = cls.__dict__.get("Options"), getattr(cls, "name", None)
        if isinstance(declared, type) and isinstance(name, str):
            declare_options(declared, name)

    def __init__(self, options: OptionsT) -> None:
        self.options = options

    def check(self, host: Host) -> Verdict:
        """Whether this host can have the backend. Never imports the engine, never raises."""
        return host.meets(*self.requires)

    def accepts(self, model: Callable[..., object], signature: Signature) -> Verdict:
        """Whether this model, called this way, can be optimized. Changes nothing, never raises.

        An override begins with this one, which checks ``needs_tensors``.
        """
        if self.needs_tensors and not signature.tensors:
            return Verdict.no(
                "none of the inputs is a tensor",
                f"Pass the inputs as tensors, or leave {self.name} out",
            )
        return Verdict.yes()

    @abstractmethod
    def apply(self, model: torch.nn.Module, context: Context) -> Applied:
        """Optimize the model.

        Args:
            model: in the form that the backend takes, in eval mode. Unless ``context.inplace``,
                it must stay as it is; sharing its weights is welcome.
            context: the host, and real inputs.

        Raises:
            BackendError: it can't be done, with a reason and a remedy. Any other exception is
                reported as the backend's own fault.
        """
