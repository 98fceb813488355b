"""Random small modules whose Python code depends on sizes, values, state and more, and calls."""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional

WIDTH = 8
Block = Callable[["RandomModule", torch.Tensor, torch.Tensor, int], torch.Tensor]
"""Takes the module, both inputs, and a number that stands for the block's own choices."""


def _linear(module: "RandomModule", x: torch.Tensor, y: torch.Tensor, n: int) -> torch.Tensor:
    return functional.gelu(module.linear(x))


def _residual(module: "RandomModule", x: torch.Tensor, y: torch.Tensor, n: int) -> torch.Tensor:
    return x + module.other(functional.relu(x))


def _joined(module: "RandomModule", x: torch.Tensor, y: torch.Tensor, n: int) -> torch.Tensor:
    return x + (x @ y.transpose(-1, -2)).softmax(-1) @ y


def _size_branch(module: "RandomModule", x: torch.Tensor, y: torch.Tensor, n: int) -> torch.Tensor:
    return x * 2 if x.shape[1] > (3, 5, 9)[n % 3] else x - 1


def _other_size_branch(
    module: "RandomModule", x: torch.Tensor, y: torch.Tensor, n: int
) -> torch.Tensor:
    return x * 3 if y.shape[0] % (2 + n % 2) else x + 0.5


def _batch_branch(module: "RandomModule", x: torch.Tensor, y: torch.Tensor, n: int) -> torch.Tensor:
    return x + 1 if x.shape[0] == (1, 2, 4)[n % 3] else x


def _scaled_by_size(
    module: "RandomModule", x: torch.Tensor, y: torch.Tensor, n: int
) -> torch.Tensor:
    return x * (math.ceil(x.shape[1] / 3) / 4)


def _padded(module: "RandomModule", x: torch.Tensor, y: torch.Tensor, n: int) -> torch.Tensor:
    multiple = 2 + 2 * (n % 2)
    missing = (multiple - x.shape[1] % multiple) % multiple
    padded = functional.pad(x, (0, 0, 0, missing))
    return (
        padded.view(x.shape[0], -1, multiple, WIDTH).mean(2).repeat(1, multiple, 1)[:, : x.shape[1]]
    )


def _loop(module: "RandomModule", x: torch.Tensor, y: torch.Tensor, n: int) -> torch.Tensor:
    for i in range(y.shape[0]):
        x = x + y[i] / (i + 1)
    return x


def _list_of_sizes(
    module: "RandomModule", x: torch.Tensor, y: torch.Tensor, n: int
) -> torch.Tensor:
    return x * torch.tensor([1.0, 1.5, 2.0][min(x.shape[1] // 4, 2)])


def _positions(module: "RandomModule", x: torch.Tensor, y: torch.Tensor, n: int) -> torch.Tensor:
    return x + module.positions[: x.shape[1]]


def _value_branch(module: "RandomModule", x: torch.Tensor, y: torch.Tensor, n: int) -> torch.Tensor:
    return x * 2 if bool((y > 2.0 * (n % 2)).any()) else x


def _value_index(module: "RandomModule", x: torch.Tensor, y: torch.Tensor, n: int) -> torch.Tensor:
    return x + y[int(x.abs().sum().item()) % y.shape[0]]


def _value_list(module: "RandomModule", x: torch.Tensor, y: torch.Tensor, n: int) -> torch.Tensor:
    return x * sum(1.0 for v in y.flatten().tolist() if v > 0)


def _selected(module: "RandomModule", x: torch.Tensor, y: torch.Tensor, n: int) -> torch.Tensor:
    return x + y[y.sum(-1) > 0].sum(0)


def _counting(module: "RandomModule", x: torch.Tensor, y: torch.Tensor, n: int) -> torch.Tensor:
    module.calls += 1
    return x


def _accumulating(module: "RandomModule", x: torch.Tensor, y: torch.Tensor, n: int) -> torch.Tensor:
    module.memory = module.memory * 0.5 + y.mean(0)
    return x + module.memory


def _writing_buffer(
    module: "RandomModule", x: torch.Tensor, y: torch.Tensor, n: int
) -> torch.Tensor:
    module.state.add_(y.mean(0))
    return x + module.state


def _switching(module: "RandomModule", x: torch.Tensor, y: torch.Tensor, n: int) -> torch.Tensor:
    if x.shape[1] < 4:
        module.mode = "short"
    return x * (1.0 if module.mode == "short" else 2.0)


def _in_place(module: "RandomModule", x: torch.Tensor, y: torch.Tensor, n: int) -> torch.Tensor:
    return y.mul_(0.5).sum() + x


def _random(module: "RandomModule", x: torch.Tensor, y: torch.Tensor, n: int) -> torch.Tensor:
    return functional.dropout(x, 0.5, training=True)


def _unused_random(
    module: "RandomModule", x: torch.Tensor, y: torch.Tensor, n: int
) -> torch.Tensor:
    torch.rand(1)
    return x


def _flag(module: "RandomModule", x: torch.Tensor, y: torch.Tensor, n: int) -> torch.Tensor:
    return x * (2.0 if module.flag else 3.0)


PLAIN: tuple[Block, ...] = (_linear, _residual, _joined, _positions, _unused_random, _flag)
DEPENDENT: tuple[Block, ...] = (
    *(_size_branch, _other_size_branch, _batch_branch, _scaled_by_size, _padded, _loop),
    *(_list_of_sizes, _value_branch, _value_index, _value_list, _selected, _counting),
    *(_accumulating, _writing_buffer, _switching, _in_place, _random),
)


class RandomModule(torch.nn.Module):
    """A module of a few blocks, and an output of one of several kinds, chosen by a seed."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        chosen = random.Random(seed)
        self.linear, self.other = torch.nn.Linear(WIDTH, WIDTH), torch.nn.Linear(WIDTH, WIDTH)
        self.register_buffer("positions", torch.randn(64, WIDTH))
        self.register_buffer("state", torch.zeros(WIDTH))
        self.memory, self.calls, self.mode, self.flag = torch.zeros(WIDTH), 0, "long", True
        blocks = [*chosen.choices(PLAIN, k=2), *chosen.choices(DEPENDENT, k=chosen.randint(0, 2))]
        chosen.shuffle(blocks)
        self.blocks = tuple((block, chosen.randrange(6)) for block in blocks)
        self.kind = chosen.randrange(6)
        self.seed = seed

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> object:
        """Take ``x`` of shape (batch, length, 8) and ``y`` of shape (rows, 8)."""
        for block, choice in self.blocks:
            x = block(self, x, y, choice)
        if self.kind == 1:
            return {"x": x, "rows": len(x)}
        if self.kind == 2:
            return {"x": x, "long": x.shape[1] > 6, "pair": (x.mean(1), None)}
        if self.kind == 3:
            return x, float(y.shape[0]) / 2
        if self.kind == 4:
            return [x, {"count": int((y > 0).sum())}]
        return x

    def describe(self) -> str:
        """Name the blocks and the kind of the output."""
        return f"seed {self.seed}: {[block.__name__ for block, _ in self.blocks]}, kind {self.kind}"


@dataclass(frozen=True)
class Call:
    """Inputs of one call, and whether the module's flag is switched before."""

    x: torch.Tensor
    y: torch.Tensor
    switched: bool


def random_calls(seed: int, number: int) -> list[Call]:
    """Make calls of various sizes and values."""
    chosen, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    calls = []
    for _ in range(number):
        batch, length = chosen.choice([1, 2, 3, 4, 7]), chosen.choice([1, 2, 3, 5, 6, 9, 12, 20])
        rows, sign = chosen.choice([1, 2, 3, 5, 8]), chosen.choice([1.0, -1.0, 4.0])
        x = torch.randn(batch, length, WIDTH, generator=generator)
        y = torch.randn(rows, WIDTH, generator=generator).abs() * sign
        calls.append(Call(x, y, chosen.random() < 0.1))
    return calls
