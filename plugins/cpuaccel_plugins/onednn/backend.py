"""The backend, and the order of its passes."""

from typing import ClassVar

import torch

import cpuaccel
from cpuaccel import Applied, Backend, BackendError, Context, Form


class OneDnnOptions(cpuaccel.Options):
    """Options of ``onednn``.

    Attributes:
        measure: leave alone, after a short probe of each shape, what stock operators do as fast.
            Off, everything that can be fused is, and builds don't depend on the machine's load.
        prepack: bring weights into oneDNN's blocked layout. Off, the graph computes with the
            model's own weights, so that none is held twice, and is some percent slower;
            convolutions are left alone, and linears are not joined.
    """

    measure: bool = True
    prepack: bool = True


class OneDnn(Backend[OneDnnOptions]):
    """Exports the model, fuses its graph on oneDNN's operators and prepacks the weights."""

    name = "onednn"
    summary = "graph fusions and prepacked weights on stock PyTorch's own oneDNN operators"
    takes = Form.MODULE
    gives = Form.COMPILED
    needs_tensors = True
    requires = (("torch>=2.6",),)  # the first whose export leaves sizes open by itself
    Options: ClassVar[type[OneDnnOptions]] = OneDnnOptions

    def apply(self, model: torch.nn.Module, context: Context) -> Applied:
        """Capture, fuse, prepack and compile."""
        from cpuaccel_plugins.onednn.build import build  # torch.export is imported only here

        measure, prepack = self.options.measure, self.options.prepack
        applied = build(model, context, measure=measure, prepacked=prepack)
        found = applied.evidence
        if not (found["fusions"] or found["packed_weights"] or "left_alone" in found):
            raise BackendError(
                f"there is nothing in {type(model).__name__} that oneDNN has fused operators for",
                "Leave onednn out for this model",
            )
        return applied
