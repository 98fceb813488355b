"""The bias that models of BART's kind add to the logits, added by the head instead.

An addition of its own reads and writes all logits once more: of a few beams and a large vocabulary,
that takes as long as a layer.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from transformers import PreTrainedModel

BUFFER = "final_logits_bias"

ADDITIONS = (torch.add, torch.Tensor.add, torch.Tensor.__add__)


class AddedBias(torch.Tensor):
    """A bias that is in the logits already: their sum with it is what they are."""

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run a function of tensors."""
        if func in ADDITIONS and len(args) == 2 and type(args[1]) is cls and not kwargs:
            return args[0]
        output = super().__torch_function__(func, types, args, kwargs or {})  # type: ignore[no-untyped-call]
        return output if func is torch.Tensor.to else _plain(output)


def let_head_add_bias(model: torch.nn.Module) -> None:
    """Move the bias of the logits into the linear that computes them, where a model has one."""
    assert isinstance(model, PreTrainedModel)
    bias, head = model._buffers.get(BUFFER), model.get_output_embeddings()  # type: ignore[no-untyped-call]
    if (
        bias is None
        or type(head) is not torch.nn.Linear
        or head.bias is not None
        or bias.shape != (1, head.out_features)
        or bias.dtype != head.weight.dtype
        or not type(model).__module__.startswith("transformers.models.")
    ):
        return
    head.bias = torch.nn.Parameter(bias.detach()[0], requires_grad=False)
    model._buffers[BUFFER] = bias.detach().as_subclass(AddedBias)


def _plain(output: Any) -> Any:
    return output.as_subclass(torch.Tensor) if isinstance(output, AddedBias) else output
