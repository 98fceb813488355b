"""A third-party plugin: fold batch normalization into the layer before it."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

import cpuaccel
from cpuaccel import Applied, Backend, Context, Form, Signature, Verdict

Foldable = tuple[torch.nn.Sequential, int]
"""A Sequential, and the index of a layer that is followed by batch normalization."""


class FoldBnOptions(cpuaccel.Options):
    """Options of ``fold_bn``.

    Attributes:
        linear: fold into linear layers as well as convolutions.
    """

    linear: bool = True


class FoldBn(Backend[FoldBnOptions]):
    """Folds batch normalization, which only scales and shifts in eval mode."""

    name = "fold_bn"
    summary = "folds batch normalization into the convolution or linear layer before it"
    takes = Form.MODULE
    gives = Form.MODULE
    requires = (("torch>=1.13",),)
    Options = FoldBnOptions

    def accepts(self, model: Callable[..., object], signature: Signature) -> Verdict:
        """Require at least one layer to fold into."""
        if isinstance(model, torch.nn.Module) and any(self._foldable(model)):
            return Verdict.yes()
        return Verdict.no(
            "no convolution or linear layer in an nn.Sequential is followed by batch normalization",
            "Leave fold_bn out for this model",
        )

    def apply(self, model: torch.nn.Module, context: Context) -> Applied:
        """Fold in a copy that shares the weights of all other layers."""
        folded = model if context.inplace else cpuaccel.shared_copy(model)
        foldable = list(self._foldable(folded))
        for sequence, index in foldable:
            layer: Any = sequence[index]
            norm: Any = sequence[index + 1]
            fuse = fuse_linear_bn_eval if isinstance(layer, torch.nn.Linear) else fuse_conv_bn_eval
            sequence[index] = fuse(layer, norm)  # a new layer; the original keeps its weights
            sequence[index + 1] = torch.nn.Identity()
        return Applied(folded, evidence={"folded": len(foldable)})

    def _foldable(self, model: torch.nn.Module) -> Iterator[Foldable]:
        for module in model.modules():
            if type(module) is not torch.nn.Sequential:  # a subclass may have another forward
                continue
            for index, (layer, norm) in enumerate(zip(module, list(module)[1:])):
                # Without running statistics it uses those of the batch and can't be folded.
                if (
                    isinstance(norm, _BatchNorm)
                    and norm.track_running_stats
                    and self._supports(layer)
                ):
                    yield module, index

    def _supports(self, layer: torch.nn.Module) -> bool:
        convolutions = (torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d)
        if isinstance(layer, torch.nn.Linear):
            return self.options.linear
        return isinstance(layer, convolutions)


@cpuaccel.hookimpl
def cpuaccel_backends() -> list[type[FoldBn]]:
    """Offer ``fold_bn``."""
    return [FoldBn]
