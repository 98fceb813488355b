"""A third party's cpuaccel plugin: folds batch normalization into the layer before it."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

import cpuaccel
from cpuaccel import Applied, Backend, Context, Form, Signature, Verdict

Found = tuple[torch.nn.Sequential, int]
"""A Sequential, and the place in it of a layer that batch normalization follows."""


class FoldBnOptions(cpuaccel.Options):
    """Options of ``fold_bn``.

    Attributes:
        linear: fold into linear layers too, not only into convolutions.
    """

    linear: bool = True


class FoldBn(Backend[FoldBnOptions]):
    """In eval mode, batch normalization only scales and shifts: the layer before can do that."""

    name = "fold_bn"
    summary = "folds batch normalization into the convolution or linear layer before it"
    takes = Form.MODULE
    gives = Form.MODULE
    requires = (("torch>=1.13",),)
    Options = FoldBnOptions

    def accepts(self, model: Callable[..., object], signature: Signature) -> Verdict:
        """Ask for something to fold."""
        if isinstance(model, torch.nn.Module) and any(self._found(model)):
            return Verdict.yes()
        return Verdict.no(
            "no convolution or linear layer in an nn.Sequential is followed by batch normalization",
            "Leave fold_bn out for this model",
        )

    def apply(self, model: torch.nn.Module, context: Context) -> Applied:
        """Fold in a copy that shares the weights of all other layers."""
        folded = model if context.inplace else cpuaccel.shared_copy(model)
        found = list(self._found(folded))
        for sequence, place in found:
            layer: Any = sequence[place]
            norm: Any = sequence[place + 1]
            fuse = fuse_linear_bn_eval if isinstance(layer, torch.nn.Linear) else fuse_conv_bn_eval
            sequence[place] = fuse(layer, norm)  # a new layer; the given one keeps its weights
            sequence[place + 1] = torch.nn.Identity()
        return Applied(folded, evidence={"folded": len(found)})

    def _found(self, model: torch.nn.Module) -> Iterator[Found]:
        for module in model.modules():
            if type(module) is not torch.nn.Sequential:  # a subclass may call its parts otherwise
                continue
            for place, (layer, norm) in enumerate(zip(module, list(module)[1:])):
                # Without running statistics it normalizes by the batch, which nothing can fold.
                if isinstance(norm, _BatchNorm) and norm.track_running_stats and self._fits(layer):
                    yield module, place

    def _fits(self, layer: torch.nn.Module) -> bool:
        convolutions = (torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d)
        if isinstance(layer, torch.nn.Linear):
            return self.options.linear
        return isinstance(layer, convolutions)


@cpuaccel.hookimpl
def cpuaccel_backends() -> list[type[FoldBn]]:
    """Offer ``fold_bn``."""
    return [FoldBn]
