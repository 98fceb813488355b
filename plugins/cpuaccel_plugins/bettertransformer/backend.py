"""The backend, and which of its two implementations serves where."""

import importlib
from collections.abc import Callable
from typing import Literal

import torch
from packaging.version import Version

import cpuaccel
from cpuaccel import Applied, Backend, Context, Form, Host, Signature, Verdict
from cpuaccel_plugins.common.engine_errors import leave_out

OPTIMUM = ("torch>=1.13", "optimum>=1.8,<2", "transformers>=4.30,<4.49")
NATIVE = ("torch>=2.4", "transformers>=5")

OPTIMUMS_TORCH = Version("1.13.0")
"""The oldest torch that optimum takes; a pre-release of it, by its name, is older."""


class BetterTransformerOptions(cpuaccel.Options):
    """Options of ``bettertransformer``.

    Attributes:
        implementation: ``optimum`` for optimum's own BetterTransformer, ``native`` for
            cpuaccel's through Transformers' attention interface, ``auto`` for whichever this
            environment has.
    """

    implementation: Literal["auto", "optimum", "native"] = "auto"


class BetterTransformer(Backend[BetterTransformerOptions]):
    """Fuses attention and removes padding inside the encoder, for text, image and audio."""

    name = "bettertransformer"
    summary = "fused attention and no computing on padding, for Transformers encoders"
    takes = Form.MODULE
    gives = Form.MODULE
    requires = (NATIVE, OPTIMUM)
    Options = BetterTransformerOptions

    def check(self, host: Host) -> Verdict:
        """Ask for what the chosen implementation needs."""
        wanted = {"auto": (NATIVE, OPTIMUM), "optimum": (OPTIMUM,), "native": (NATIVE,)}
        verdict = host.meets(*wanted[self.options.implementation])
        if verdict and Version(host.packages["torch"]) < OPTIMUMS_TORCH:
            return self._refused_by_optimum(host)
        return verdict

    def _refused_by_optimum(self, host: Host) -> Verdict:
        """Debian's torch 1.13 has all that optimum needs but the name."""
        reason = (
            f"optimum {host.packages['optimum']} refuses torch {host.packages['torch']}, which it "
            f"takes for a pre-release older than {OPTIMUMS_TORCH}"
        )
        if self.options.implementation == "auto":
            reason += f"; and for the native implementation {host.meets(NATIVE).reason}"
        return Verdict.no(
            reason, f"Install a released torch from {OPTIMUMS_TORCH} on, or use jit by itself"
        )

    def accepts(self, model: Callable[..., object], signature: Signature) -> Verdict:
        """Only Transformers models have the layers that are replaced."""
        if not hasattr(model, "config") or not hasattr(model, "base_model"):
            return Verdict.no(
                f"{type(model).__name__} is not a Transformers model",
                leave_out(self.name),
            )
        return Verdict.yes()

    def apply(self, model: torch.nn.Module, context: Context) -> Applied:
        """Hand over to the implementation, whose module imports transformers or optimum."""
        implementation = self.options.implementation
        if implementation == "auto":
            implementation = "native" if context.host.meets(NATIVE) else "optimum"
        module = importlib.import_module(f"{__package__}.{implementation}")
        applied = module.apply(model, context)
        assert isinstance(applied, Applied)
        return applied
