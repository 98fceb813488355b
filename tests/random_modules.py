"""Random small modules whose Python code depends on sizes, values, state and more, and calls."""

import copy
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


def _in_chunks(module: "RandomModule", x: torch.Tensor, y: torch.Tensor, n: int) -> torch.Tensor:
    chunks = (x.split(3, 1), x.chunk(3, 1), x.unbind(1))[n % 3]
    return x + sum(chunk.mean() / (i + 1) for i, chunk in enumerate(chunks))


def _copied(module: "RandomModule", x: torch.Tensor, y: torch.Tensor, n: int) -> torch.Tensor:
    copied = x.new_zeros(x.shape[0], x.shape[1] + 1, WIDTH)
    copied[:, 1:] = x
    return copied[:, :-1] + x


def _causal(module: "RandomModule", x: torch.Tensor, y: torch.Tensor, n: int) -> torch.Tensor:
    mask = torch.full((x.shape[1], x.shape[1]), -1e4).triu(1)
    return (x @ x.transpose(1, 2) + mask).softmax(-1) @ x


def _attention(module: "RandomModule", x: torch.Tensor, y: torch.Tensor, n: int) -> torch.Tensor:
    heads = x.view(x.shape[0], x.shape[1], 2, WIDTH // 2).transpose(1, 2)
    if hasattr(functional, "scaled_dot_product_attention"):
        attended = functional.scaled_dot_product_attention(heads, heads, heads)
    else:  # torch before 2.0
        attended = (heads @ heads.transpose(2, 3) / heads.shape[-1] ** 0.5).softmax(-1) @ heads
    return attended.transpose(1, 2).reshape(x.shape)


def _resized(module: "RandomModule", x: torch.Tensor, y: torch.Tensor, n: int) -> torch.Tensor:
    columns = x.transpose(1, 2)
    if n % 2:
        return x + functional.adaptive_avg_pool1d(columns, 4).mean(2)[:, None]
    return functional.interpolate(columns, size=2 * x.shape[1]).transpose(1, 2)[:, : x.shape[1]]


def _largest(module: "RandomModule", x: torch.Tensor, y: torch.Tensor, n: int) -> torch.Tensor:
    return x + y.topk(min(3, y.shape[0]), dim=0).values.mean(0)


def _through_state(
    module: "RandomModule", x: torch.Tensor, y: torch.Tensor, n: int
) -> torch.Tensor:
    module.last = y.mean()
    return x * (2 if bool(module.last > 0) else 3)


def _through_numpy(
    module: "RandomModule", x: torch.Tensor, y: torch.Tensor, n: int
) -> torch.Tensor:
    return x * torch.from_numpy(y.detach().numpy().clip(0)).mean()


def _by_text(module: "RandomModule", x: torch.Tensor, y: torch.Tensor, n: int) -> torch.Tensor:
    text = (f"{x.shape[1]}", str(y.shape[0]), f"{x.shape[0]}", repr(x.shape))[n % 4]
    return x * len(text)


def _by_shapes(module: "RandomModule", x: torch.Tensor, y: torch.Tensor, n: int) -> torch.Tensor:
    same = (x.shape[1] == y.shape[0], x.shape[1:] == y.shape, y.numel() > x.numel())[n % 3]
    return x * 2 if same else x


def _by_type(module: "RandomModule", x: torch.Tensor, y: torch.Tensor, n: int) -> torch.Tensor:
    chosen = {1: 1.0, 2: 0.5, 5: 2.0}
    return x * chosen.get(y.shape[0], 3.0)


def _by_copied_value(
    module: "RandomModule", x: torch.Tensor, y: torch.Tensor, n: int
) -> torch.Tensor:
    copied = (y.clone(), y.detach().contiguous(), y.data, copy.deepcopy(y))[n % 4]
    return x * (2 if float(copied.sum()) > 0 else 3)


def _by_close_values(
    module: "RandomModule", x: torch.Tensor, y: torch.Tensor, n: int
) -> torch.Tensor:
    return x * 2 if torch.allclose(y, y.abs()) else x


def _by_formatted_value(
    module: "RandomModule", x: torch.Tensor, y: torch.Tensor, n: int
) -> torch.Tensor:
    return x * (2 if f"{y.sum():.1f}".startswith("-") else 3)


def _by_index(module: "RandomModule", x: torch.Tensor, y: torch.Tensor, n: int) -> torch.Tensor:
    return x * [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0][y[:, 0].argmax()]


def _distinct(module: "RandomModule", x: torch.Tensor, y: torch.Tensor, n: int) -> torch.Tensor:
    return x * (y > 0).unique().shape[0]


def _caught(module: "RandomModule", x: torch.Tensor, y: torch.Tensor, n: int) -> torch.Tensor:
    if x.shape[1] != y.shape[0]:
        return x
    return x + y


def _tensor_of_size(
    module: "RandomModule", x: torch.Tensor, y: torch.Tensor, n: int
) -> torch.Tensor:
    return x * torch.tensor([float(x.shape[1]), math.sqrt(y.shape[0])]).sum()


def _where(module: "RandomModule", x: torch.Tensor, y: torch.Tensor, n: int) -> torch.Tensor:
    return torch.where(y.mean() > 0, x, -x).cumsum(1) / 4


def _convolved(module: "RandomModule", x: torch.Tensor, y: torch.Tensor, n: int) -> torch.Tensor:
    return module.convolution(x.transpose(1, 2)).transpose(1, 2)


def _recurrent(module: "RandomModule", x: torch.Tensor, y: torch.Tensor, n: int) -> torch.Tensor:
    return module.recurrent(x)[0]


def _last(module: "RandomModule", x: torch.Tensor, y: torch.Tensor, n: int) -> torch.Tensor:
    return x + (x[:, -1:], x[:, ::2].mean(1, keepdim=True), x.flip(1))[n % 3]


def _flattened(module: "RandomModule", x: torch.Tensor, y: torch.Tensor, n: int) -> torch.Tensor:
    return module.other(x.reshape(-1, WIDTH)).view(x.shape[0], -1, WIDTH)


PLAIN: tuple[Block, ...] = (
    *(_linear, _residual, _joined, _positions, _unused_random, _flag, _copied, _causal),
    *(_attention, _where, _convolved, _recurrent, _last, _flattened),
)
DEPENDENT: tuple[Block, ...] = (
    *(_size_branch, _other_size_branch, _batch_branch, _scaled_by_size, _padded, _loop),
    *(_list_of_sizes, _in_chunks, _resized, _largest, _by_text, _by_shapes, _by_type, _caught),
    *(_tensor_of_size, _value_branch, _value_index, _value_list, _selected, _through_state),
    *(_through_numpy, _by_copied_value, _by_close_values, _by_formatted_value, _by_index),
    *(_distinct, _counting, _accumulating, _writing_buffer, _switching, _in_place, _random),
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
        self.convolution = torch.nn.Conv1d(WIDTH, WIDTH, 3, padding=1)
        self.recurrent = torch.nn.GRU(WIDTH, WIDTH, batch_first=True)
        blocks = [*chosen.choices(PLAIN, k=2), *chosen.choices(DEPENDENT, k=chosen.randint(0, 2))]
        chosen.shuffle(blocks)
        self.blocks = tuple((block, chosen.randrange(6)) for block in blocks)
        self.kind = chosen.randrange(9)
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
        if self.kind == 5:
            return {"x": x, "rows": [i for i, v in enumerate(y[:, 0].tolist()) if v > 0]}
        if self.kind == 6:
            return x, list(x.shape), f"{x.shape[1]} of {y.shape[0]}"
        if self.kind == 7:
            return {"x": x, "mean": x.mean(1) if x.shape[1] > 4 else None}
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
