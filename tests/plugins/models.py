"""Models that are hard to trace or export, each for one reason."""

from typing import Any

import torch

import cpuaccel
from cpuaccel.testing import tiny_text_model

Inputs = dict[str, torch.Tensor]


class Nested(torch.nn.Module):
    """Returns a dict of tuples of tensors, with a constant among them."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(4, 4)
        torch.nn.init.constant_(self.linear.bias, 8.0)  # no output close to 0, so that 8 bits do

    def forward(self, x: torch.Tensor) -> dict[str, Any]:
        hidden = self.linear(x)
        return {
            "last": hidden,
            "states": (x, (hidden, hidden.relu())),
            "heads": [{"score": hidden.sum(-1)}],
            "count": 3,
        }


class LoopsOverRows(torch.nn.Module):
    """A trace unrolls the loop for the number of rows of its example."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([self.linear(x[row]) * (row + 1) for row in range(x.shape[0])])


class DividesByLength(torch.nn.Module):
    """A trace stores the length as a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(50, 4)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        length = int(input_ids.shape[1])
        embedded: torch.Tensor = self.embedding(input_ids)
        return embedded / float(length)


class Branches(torch.nn.Module):
    """A trace keeps only the branch of its example, which depends on the batch size."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[0] > 2:
            return x * 2
        return x + 1


class Conditional(torch.nn.Module):
    """Parameters with a gap: the second is left out."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(4, 4)

    def forward(
        self,
        x: torch.Tensor,
        bias: torch.Tensor | None = None,
        scale: torch.Tensor | None = None,
        *,
        negate: bool = False,
    ) -> torch.Tensor:
        output: torch.Tensor = self.linear(x)
        if bias is not None:
            output = output + bias
        if scale is not None:
            output = output * scale
        return -output if negate else output


class Untraceable(torch.nn.Module):
    """Raises while it is traced, exported or compiled."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        compiler = getattr(torch, "compiler", None)  # torch >= 2.1
        if torch.jit.is_tracing() or (compiler is not None and compiler.is_compiling()):
            raise ValueError("this model can't be traced\nfor its own reasons")
        return x + 1


def text_model(architecture: str, **config: object) -> torch.nn.Module:
    model = tiny_text_model(architecture)
    for name, value in config.items():
        setattr(model.config, name, value)
    return model


def text_batch(size: int = 2, length: int = 12, *, left: int = 0, right: int = 0) -> Inputs:
    generator = torch.Generator().manual_seed(2)
    mask = torch.ones(size, length, dtype=torch.long)
    if left:
        mask[0, :left] = 0
    if right:
        mask[-1, -right:] = 0
    return {
        "input_ids": torch.randint(3, 60, (size, length), generator=generator),
        "attention_mask": mask,
    }


def unseen() -> list[Inputs]:
    return [
        text_batch(1, 12),
        text_batch(5, 7, right=3),
        text_batch(3, 20, left=6),
        text_batch(4, 9, left=2, right=4),
    ]


def original(model: torch.nn.Module, inputs: Inputs) -> Any:
    with torch.no_grad():
        return model(**inputs)


def assert_all_optimized(fast: cpuaccel.OptimizedModel) -> None:
    assert set(fast.report.calls) == {"optimized"}, fast.report
