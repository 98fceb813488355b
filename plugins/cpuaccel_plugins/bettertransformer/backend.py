"""The backend, and which of its two implementations serves where."""

import importlib
from collections.abc import Callable
from typing import Literal

import torch

import cpuaccel
from cpuaccel import Applied, Backend, Context, Form, Host, Signature, Verdict

OPTIMUM = ("torch>=2.0", "optimum<2", "transformers<4.49")
NATIVE = ("torch>=2.4", "transformers>=5")


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
        return host.meets(*wanted[self.options.implementation])

    def accepts(self, model: Callable[..., object], signature: Signature) -> Verdict:
        """Only Transformers models have the layers that are replaced."""
        if not hasattr(model, "config") or not hasattr(model, "base_model"):
            return Verdict.no(
                f"{type(model).__name__} is no Transformers model",
                "Leave bettertransformer out for this model",
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
