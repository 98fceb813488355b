"""A mixture's experts: few rows read the weights of the experts that were chosen, and no others."""

import ctypes

import torch

from cpuaccel_plugins.decoding.agreement import FEW_BITS, Checked
from cpuaccel_plugins.decoding.linear import MOST_ROWS, FewRowsLinear
from cpuaccel_plugins.decoding.parts import ACTIVATIONS
from cpuaccel_plugins.decoding.structures import FLOATS, CExpert

ARCHITECTURES = frozenset({"mixtral", "olmoe", "qwen2_moe", "qwen3_moe"})
"""Packages of Transformers whose experts have the same code. Others may compute what a comparison
on small numbers doesn't show, such as limits."""

PANEL = 16
"""What the sizes of an expert must be multiples of: each begins with a panel of packed weights."""


def is_experts(module: torch.nn.Module) -> bool:
    """Whether a module holds the experts of a mixture, with weights in two tensors."""
    _, _, name = type(module).__module__.partition("transformers.models.")
    weights = dict(module.named_parameters(recurse=False))
    return (
        type(module).__name__.endswith("Experts")
        and name.split(".")[0] in ARCHITECTURES
        and weights.keys() == {"gate_up_proj", "down_proj"}
        and [name for name, _ in module.named_children()] == ["act_fn"]
        and type(module.act_fn) in ACTIVATIONS
        and all(weight.dim() == 3 and weight.dtype in FLOATS for weight in weights.values())
        and all(size % PANEL == 0 for weight in weights.values() for size in weight.shape[1:])
    )


def as_linear(weights: torch.Tensor) -> torch.nn.Linear:
    """All experts' matrices as one linear, with one expert's outputs after the other's."""
    joint = weights.detach().flatten(0, 1)
    linear = torch.nn.Linear(joint.shape[1], joint.shape[0], bias=False, device="meta")
    linear.weight = torch.nn.Parameter(joint, requires_grad=False)
    return linear


class FewRowsExperts(Checked, torch.nn.Module):
    """The experts of a mixture, as their model calls them."""

    def __init__(
        self,
        original: torch.nn.Module,
        gate_up: FewRowsLinear,
        down: FewRowsLinear,
        library: ctypes.CDLL,
    ) -> None:
        torch.nn.Module.__init__(self)
        Checked.__init__(self, "a mixture of experts")
        activation = original.act_fn
        assert isinstance(activation, torch.nn.Module)
        self._plain: torch.nn.Module | None = original
        self._gate_up, self._down, self._activation = gate_up, down, activation
        self._library = library
        width = down.in_features
        self._number = gate_up.out_features // (2 * width)
        hidden = down.out_features // self._number
        self._sizes = hidden, width
        self._described = (CExpert * self._number)(
            *(
                CExpert(
                    gate_up.described_part(2 * width * index, width),
                    gate_up.described_part(2 * width * index + width, width),
                    down.described_part(hidden * index, hidden),
                )
                for index in range(self._number)
            )
        )

    def finish_checking(self, *, agreed: bool = False) -> None:
        """From now on compute without the model's own code, if both were compared and agree."""
        super().finish_checking(agreed=agreed)
        if self.agrees:
            self._plain = None

    @property
    def linears(self) -> tuple[FewRowsLinear, FewRowsLinear]:
        """All experts' matrices, as linears."""
        return self._gate_up, self._down

    def bytes_read(self, chosen: int) -> int:
        """Bytes of weights that one row reads, of ``chosen`` experts."""
        return sum(linear.weight.nbytes for linear in self.linears) * chosen // self._number

    def forward(
        self, hidden_states: torch.Tensor, top_k_index: torch.Tensor, top_k_weights: torch.Tensor
    ) -> torch.Tensor:
        """Compute the experts that were chosen for each row, and add up their outputs.

        Args:
            hidden_states: shape (rows, hidden size).
            top_k_index: the numbers of the experts, shape (rows, chosen).
            top_k_weights: their shares, shape (rows, chosen).
        """
        if self._plain is not None and not self.agrees:
            return self._plain(hidden_states, top_k_index, top_k_weights)  # type: ignore[no-any-return]
        if len(hidden_states) > MOST_ROWS:
            output = self._many_rows(hidden_states, top_k_index, top_k_weights)
        else:
            output = self._few_rows(hidden_states, top_k_index, top_k_weights)
        if self._plain is None:
            return output
        plain: torch.Tensor = self._plain(hidden_states, top_k_index, top_k_weights)
        self.compare(output, plain, FEW_BITS[self._gate_up.bits])
        return plain

    def _few_rows(
        self, hidden: torch.Tensor, chosen: torch.Tensor, shares: torch.Tensor
    ) -> torch.Tensor:
        hidden, chosen, shares = (
            hidden.contiguous(),
            chosen.long().contiguous(),
            shares.float().contiguous(),
        )
        output = torch.empty_like(hidden)
        self._library.cpuaccel_experts(
            *(self._described, self._number, ACTIVATIONS[type(self._activation)]),
            *(hidden.data_ptr(), output.data_ptr(), FLOATS[hidden.dtype], len(hidden)),
            *(chosen.data_ptr(), shares.data_ptr(), chosen.shape[1]),
        )
        return output

    def _many_rows(
        self, hidden: torch.Tensor, chosen: torch.Tensor, shares: torch.Tensor
    ) -> torch.Tensor:
        output = torch.zeros_like(hidden, dtype=torch.float32)
        size, width = self._sizes
        for index in sorted({*chosen.flatten().tolist()}):
            if index >= self._number:  # none
                continue
            rows, place = torch.where(chosen == index)
            joint = self._gate_up.outputs(hidden[rows], 2 * width * index, 2 * width)
            gate, up = joint.chunk(2, -1)
            made = self._down.outputs(self._activation(gate) * up, size * index, size)
            output.index_add_(0, rows, made.float() * shares[rows, place, None])
        return output.to(hidden.dtype)
