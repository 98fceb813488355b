"""The contract between cpuaccel and a backend: read this to write one.

docs/writing_a_plugin.md is a tutorial, hookspecs.py shows how a plugin offers its backends, and
``cpuaccel.testing.BackendContract`` tests a backend against this contract.
"""

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
from cpuaccel.plugin.kept import Kept
from cpuaccel.plugin.verdict import Verdict

Evidence = Mapping[str, int | float | str]
"""What shows that a backend took effect: counts and facts, by name."""

Unload = Callable[[torch.Tensor], bool]
"""Frees the memory of a parameter that a stepper does not read any more, and returns whether it
did. The parameter stays as it is: whatever reads it then reads it from a file."""


class Form(enum.StrEnum):
    """What a model is at one point of a pipeline.

    A ``MODULE`` is called like the original model and returns what it returns. A ``SCRIPT``
    (TorchScript) and a ``COMPILED`` (any other callable) are called with the input tensors by
    name and return a flat tuple of the output's tensors, from which cpuaccel rebuilds the
    original's output type.
    """

    MODULE = "module"
    SCRIPT = "script"
    COMPILED = "compiled"


OptionsT = TypeVar("OptionsT", bound=Options)


@dataclass(frozen=True)
class Context:
    """What a backend's ``apply`` may use besides the model.

    Attributes:
        host: this machine and environment.
        signature: how the model is called; ``signature.inputs`` are real example inputs.
        dtype: precision of the whole pipeline, None to keep the model's own.
        inplace: whether ``apply`` may change the module instead of copying it.
        release: with ``keep_original=False``: call it with each weight that the backend keeps in
            its own layout, and with a function that restores the weight. None otherwise.
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
        evidence: what shows that the backend took effect: modules replaced, nodes fused.
        autocast: the dtype of the ``torch.autocast`` that the model must be called under, if any.
        value_ranges: for a model that was calibrated with samples: the least and the largest value
            of each floating input for which it is right; empty if there is none. The original
            serves calls with others, and the model is also verified on shuffled values.
        kept: what ``Backend.restore`` makes the model of again; ``OptimizedModel.save`` calls it.
            None to build the model in each process. Only for a model that is not a module.
    """

    model: Callable[..., object]
    evidence: Evidence = field(default_factory=dict)
    autocast: torch.dtype | None = None
    value_ranges: Mapping[str, tuple[float, float]] | None = None
    kept: Callable[[], Kept] | None = None


@dataclass(frozen=True)
class Stepper:
    """What a backend that generates gives: prefill and step over a cache.

    Attributes:
        forward: called with the arguments of the model's own ``forward``, by name. It extends the
            cache in ``past_key_values`` and returns what the model returns. An encoder-decoder gets
            ``encoder_outputs`` and an ``EncoderDecoderCache``. A prefill is a call with an empty
            cache, a step one with a new token for each row. An original may go on with the same
            cache. A ``BackendError`` lets the original serve a call, with the reason in the report;
            the cache is then set back to what it held before.
        bytes_per_step: bytes of weights that a step reads; 0 if they differ from step to step.
        evidence: what shows that the backend took effect.
        in_4_bits: whether the user's options ask for weights in 4 bits: logits may then differ by
            more than by the backend's ``tolerance``.
        kept: what ``Backend.restore_stepper`` makes it of again; None to build it in each process.
        counted: says for the report what its calls came to, besides tokens and seconds.

    A stepper whose engine has keys and values in a memory of its own ends a call with
    ``layer.put(storage)`` for each layer of the cache (a ``cpuaccel.CacheLayer``), with a
    ``cpuaccel.Storage``, and begins the next one with ``layer.storage``: where that is what the
    last call left, perhaps reordered, the engine goes on from there. It is None where anybody else
    has read or changed the contents, which are in ``layer.keys`` and ``layer.values`` from then on.
    A cache without layers makes them by ``cache.layer_class_to_replicate()``.

    Layers of a cross-attention cache (a ``cpuaccel.SourceCacheLayer``) can hold the keys and values
    of an encoder's output once for all rows that read the same output, as beams do:
    ``cpuaccel.equal_rows`` finds these rows.
    """

    forward: Callable[..., object]
    bytes_per_step: int
    evidence: Evidence = field(default_factory=dict)
    in_4_bits: bool = False
    kept: Kept | None = None
    counted: Callable[[], str] | None = None


class Backend(ABC, Generic[OptionsT]):
    """One way to optimize a model, offered through the hook ``cpuaccel_backends``.

    Instances have no state but their options. Import the engine in ``apply`` only: importing some
    engines changes global state, and importing one that doesn't fit this torch may end the process.

    Attributes:
        name: what users write: lower case, digits, underscores.
        summary: one line for ``cpuaccel plugins``.
        takes: the form of model that ``apply`` takes.
        gives: the form of model that ``apply`` returns.
        before: names of backends that must come later than this one in a pipeline. Only needed
            where ``takes`` and ``gives`` don't determine the order.
        excludes: names of backends that can't be in one pipeline with this one, each with a reason
            without a full stop.
        requires: sets of PEP 508 requirements; meeting any one set is enough.
        needs_tensors: whether at least one input must be a tensor.
        casts: whether ``apply`` casts the weights to ``context.dtype`` itself. Otherwise cpuaccel
            casts them before.
        tolerance: largest difference accepted by default, relative to the largest magnitude in an
            output, for a backend that computes with less than the pipeline's precision. 0 to use
            the precision's tolerance.
        generates: whether the backend has a ``stepper`` for ``generate``.
        Options: the class of the options. Declare it in the body of the one backend it belongs to.
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
    generates: ClassVar[bool] = False
    Options: ClassVar[type[Options]] = Options

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        declared, name = cls.__dict__.get("Options"), getattr(cls, "name", None)
        if isinstance(declared, type) and isinstance(name, str):
            declare_options(declared, name)

    def __init__(self, options: OptionsT) -> None:
        self.options = options

    def check(self, host: Host) -> Verdict:
        """Check whether this host can run the backend.

        Must not import the engine and must not raise: read versions and flags from ``host``. The
        default compares ``requires`` with the installed packages.
        """
        return host.meets(*self.requires)

    def accepts(self, model: Callable[..., object], signature: Signature) -> Verdict:
        """Check whether this model, called this way, can be optimized.

        Must not change the model and must not raise. An override calls this method first, which
        checks ``needs_tensors``.
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
            model: in the form that the backend takes, in eval mode. Must not be changed unless
                ``context.inplace``; the new model may share its weights.
            context: the host, the signature with example inputs, and the precision.

        Raises:
            BackendError: the backend can't be applied, with a reason and a remedy. Any other
                exception is reported as the backend's own fault.
        """

    def restore(self, model: torch.nn.Module, context: Context, kept: Kept) -> Applied:
        """Make again what ``apply`` returned of what it ``kept``, without copying its tensors.

        Only called for a model of equal code and weights, on the machine of the same user with the
        same versions, options and number of threads. Read as little of the model's weights as
        possible: they are mapped from a file, too. The outputs are compared with the original's
        stored ones; if this raises or they differ, the pipeline is applied instead.

        Args:
            model: the original, whatever step ``apply`` came after.
            context: see ``apply``; there is nothing to release.
            kept: see ``Applied``.
        """
        raise NotImplementedError(f"{self.name} keeps nothing")

    def check_generation(self, host: Host) -> Verdict:
        """Check whether this host can run the backend's ``stepper``; the rules of ``check`` hold.

        The default is the same as for calls of ``forward``.
        """
        return self.check(host)

    def stepper(self, model: torch.nn.Module, host: Host, unload: Unload | None = None) -> Stepper:
        """Optimize a model for ``generate``; only called where ``generates`` is true.

        Args:
            model: a ``transformers.PreTrainedModel`` with a ``DynamicCache``, or, if it is an
                encoder-decoder, with two in an ``EncoderDecoderCache``, in eval mode and in the
                pipeline's precision. Must not be changed; the new model may share its weights.
            host: this machine and environment.
            unload: with ``keep_original=False``: call it with each parameter of the model as soon
                as the stepper keeps it in a form of its own. None otherwise.

        Raises:
            BackendError: the model can't be optimized, with a reason and a remedy.
        """
        raise NotImplementedError(f"{self.name} does not generate")

    def restore_stepper(self, model: torch.nn.Module, host: Host, kept: Kept) -> Stepper:
        """Make a stepper again of what an earlier one ``kept``, without copying its tensors.

        Only called for a model with equal weights, on the same machine with the same versions,
        options and number of threads. Read as little of the model's weights as possible: they are
        mapped from a file, too. ``kept`` comes from a file: check the shape and dtype of what
        native code reads. The result is compared with the original's stored logits; if it raises
        or differs, ``stepper`` is called instead.

        Args:
            model: see ``stepper``.
            host: this machine and environment.
            kept: see ``Stepper``.
        """
        raise NotImplementedError(f"{self.name} keeps nothing")
