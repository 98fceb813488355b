"""The backend ``onednn`` and its options."""

from typing import ClassVar, Literal

import torch

import cpuaccel
from cpuaccel import Applied, Backend, BackendError, Context, Form, Host, Kept, Stepper, Unload


class OneDnnOptions(cpuaccel.Options):
    """Options of ``onednn``.

    Attributes:
        measure: probe each shape briefly, and leave alone what stock operators compute as fast.
            If False, everything that can be fused is, and builds don't depend on the machine's
            load.
        prepack: pack weights into oneDNN's blocked layout. If False, the graph computes with the
            model's own weights: no second copy, some percent slower, convolutions are left alone
            and linears are not concatenated.
        draft_bits: let ``generate`` guess tokens with a copy of the decoder in so many bits, and
            check several at once (speculative decoding). Logits stay those of the model; a single
            sequence with predictable tokens takes fewer reads of the weights. Takes a quarter (8
            bits) or a sixth (4 bits) of a float32 decoder's memory more, and does nothing for
            beams, batches and sliding windows.
    """

    measure: bool = True
    prepack: bool = True
    draft_bits: Literal[4, 8] | None = None


class OneDnn(Backend[OneDnnOptions]):
    """Exports the model, fuses its graph on oneDNN's operators and packs its weights."""

    name = "onednn"
    summary = "graph fusions and prepacked weights on stock PyTorch's own oneDNN operators"
    takes = Form.MODULE
    gives = Form.COMPILED
    generates = True
    needs_tensors = True
    requires = (("torch>=2.6",),)  # the first whose export makes sizes dynamic by itself
    Options: ClassVar[type[OneDnnOptions]] = OneDnnOptions

    def apply(self, model: torch.nn.Module, context: Context) -> Applied:
        """Capture, fuse, pack and compile."""
        from cpuaccel_plugins.onednn.build import build  # fails with an older torch

        options = self.options
        applied = build(model, context, measure=options.measure, prepack=options.prepack)
        evidence = applied.evidence
        if not (evidence["fusions"] or evidence["packed_weights"] or "left_alone" in evidence):
            raise BackendError(
                f"{type(model).__name__} has nothing that oneDNN has fused operators for",
                "Leave onednn out for this model",
            )
        return applied

    def restore(self, model: torch.nn.Module, context: Context, kept: Kept) -> Applied:
        """Compile the graph again on the packed weights."""
        from cpuaccel_plugins.onednn.kept import restore

        return restore(kept)

    def stepper(self, model: torch.nn.Module, host: Host, unload: Unload | None = None) -> Stepper:
        """Compute few rows with kernels that read the model's own weights."""
        from cpuaccel_plugins.decoding.linear import FewRowsLinear
        from cpuaccel_plugins.decoding.model import make_stepper

        exact = make_stepper(model, lambda name, linear: FewRowsLinear, unload)
        return self._with_draft(exact, model)

    def restore_stepper(self, model: torch.nn.Module, host: Host, kept: Kept) -> Stepper:
        """Take the packed weights, and what was found out about layers."""
        from cpuaccel_plugins.decoding.model import restore_stepper

        return self._with_draft(restore_stepper(model, kept), model)

    def _with_draft(self, exact: Stepper, model: torch.nn.Module) -> Stepper:
        bits = self.options.draft_bits
        if bits is None:
            return exact
        from cpuaccel_plugins.onednn.speculation import speculate

        return speculate(exact, model, bits)
