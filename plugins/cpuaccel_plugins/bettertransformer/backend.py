"""The backend, and the choice between its two implementations."""

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
"""The oldest torch that optimum accepts; it rejects pre-releases of that version."""


class BetterTransformerOptions(cpuaccel.Options):
    """Options of ``bettertransformer``.

    Attributes:
        implementation: ``optimum`` for optimum's BetterTransformer, ``native`` for cpuaccel's,
            through Transformers' attention interface, ``auto`` for the one that can be installed
            with this version of Transformers.
    """

    implementation: Literal["auto", "optimum", "native"] = "auto"


class BetterTransformer(Backend[BetterTransformerOptions]):
    """Fuses attention and removes padding inside the encoder, for text, image and audio."""

    name = "bettertransformer"
    summary = "fused attention and no computation on padding, for Transformers encoders"
    takes = Form.MODULE
    gives = Form.MODULE
    requires = (NATIVE, OPTIMUM)
    Options = BetterTransformerOptions

    def check(self, host: Host) -> Verdict:
        """Require the packages of the chosen implementation."""
        requirements = {"auto": (NATIVE, OPTIMUM), "optimum": (OPTIMUM,), "native": (NATIVE,)}
        verdict = host.meets(*requirements[self.options.implementation])
        if verdict and Version(host.packages["torch"]) < OPTIMUMS_TORCH:
            return self._rejected_by_optimum(host)
        return verdict

    def _rejected_by_optimum(self, host: Host) -> Verdict:
        """Explain that Debian's torch 1.13 has a version number that optimum rejects."""
        reason = (
            f"optimum {host.packages['optimum']} rejects torch {host.packages['torch']} as a "
            f"pre-release older than {OPTIMUMS_TORCH}"
        )
        if self.options.implementation == "auto":
            reason += f"; the native implementation: {host.meets(NATIVE).reason}"
        return Verdict.no(
            reason, f"Install a release of torch >= {OPTIMUMS_TORCH}, or use jit alone"
        )

    def accepts(self, model: Callable[..., object], signature: Signature) -> Verdict:
        """Require a Transformers model."""
        if not hasattr(model, "config") or not hasattr(model, "base_model"):
            return Verdict.no(
                f"{type(model).__name__} is not a Transformers model",
                leave_out(self.name),
            )
        return Verdict.yes()

    def apply(self, model: torch.nn.Module, context: Context) -> Applied:
        """Call the implementation, whose module imports transformers or optimum."""
        implementation = self.options.implementation
        if implementation == "auto":
            implementation = "native" if context.host.meets(NATIVE) else "optimum"
        module = importlib.import_module(f"{__package__}.{implementation}")
        applied = module.apply(model, context)
        assert isinstance(applied, Applied)
        return applied
