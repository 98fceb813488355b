"""Random small graphs: whatever is fused in them, they have the outputs of eager."""

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cpuaccel_plugins.onednn.linear.choice import MklChoice
from tests.plugins.onednn.graphs import assert_same, fuse

WIDTH = 8

UNARY = {
    "gelu": torch.nn.functional.gelu,
    "gelu tanh": lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
    "relu": torch.relu,
    "silu": torch.nn.functional.silu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "elu": torch.nn.functional.elu,
    "norm": lambda x: torch.nn.functional.layer_norm(x, (WIDTH,)),
    "there and back": lambda x: x.transpose(0, 1).transpose(0, 1),
    "strided": lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
    "reshaped": lambda x: x.reshape(x.shape[0], -1, WIDTH),
    "halves": lambda x: torch.cat(x.chunk(2, -1)[::-1], -1),
    "part": lambda x: torch.cat([x, x], -1)[..., WIDTH // 2 : WIDTH // 2 + WIDTH],
    "dropout": lambda x: torch.nn.functional.dropout(x, 0.5, training=False),
    "cast": lambda x: x.to(torch.float32),
}
BINARY = {
    "add": torch.add,
    "add scaled": lambda a, b: torch.add(a, b, alpha=0.5),
    "add a row": lambda a, b: a + b[:, :1],
    "add in front": lambda a, b: a[:, :1] + b,
    "add a mean": lambda a, b: a + b.mean(-1, keepdim=True),
    "multiply": torch.mul,
    "subtract": torch.sub,
    "attend": lambda a, b: (
        torch.nn.functional.scaled_dot_product_attention(
            *(x.reshape(*x.shape[:2], 2, WIDTH // 2).transpose(1, 2) for x in (a, b, a))
        )
        .transpose(1, 2)
        .reshape(a.shape)
    ),
}
LINEARS = 3


@dataclass(frozen=True)
class Instruction:
    """One operator, and which of the earlier values (counted from the last) it reads."""

    name: str
    first: int
    second: int
    linear: int
    bias: bool

    def run(self, values: list[torch.Tensor], linears: torch.nn.ModuleList) -> torch.Tensor:
        a = values[-1 - self.first % len(values)]
        b = values[-1 - self.second % len(values)]
        if self.name == "linear":
            layer = linears[self.linear]
            bias = layer.bias if self.bias else None
            return torch.nn.functional.linear(a, layer.weight, bias)
        return UNARY[self.name](a) if self.name in UNARY else BINARY[self.name](a, b)


class Machine(torch.nn.Module):
    """Runs instructions; returns the last values, so that some are used twice."""

    def __init__(self, instructions: list[Instruction], results: int) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.linears = torch.nn.ModuleList(
                torch.nn.Linear(WIDTH, WIDTH) for _ in range(LINEARS)
            )
        self.instructions = instructions
        self.results = results

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        values = [x]
        for instruction in self.instructions:
            values.append(instruction.run(values, self.linears))
        return tuple(values[-self.results :])


INSTRUCTIONS = st.builds(
    Instruction,
    # Half of them are linears, which fusions are about.
    name=st.one_of(st.just("linear"), st.sampled_from([*UNARY, *BINARY])),
    first=st.integers(0, 2),
    second=st.integers(0, 3),
    linear=st.integers(0, LINEARS - 1),
    bias=st.booleans(),
)


GRAPHS = st.builds(
    Machine, st.lists(INSTRUCTIONS, min_size=2, max_size=9), results=st.integers(1, 2)
)


@settings(max_examples=80)
@given(model=GRAPHS, by_mkl=st.booleans() if torch.backends.mkl.is_available() else st.just(False))
def test_any_graph_has_the_outputs_of_eager(model: Machine, by_mkl: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        if by_mkl:
            patch.setattr(MklChoice, "prefers_mkl", lambda *_: True)
        applied = fuse(model.eval(), torch.randn(2, 6, WIDTH, generator=generator))
    for shape in ((2, 6), (1, 6), (5, 1), (3, 9)):
        assert_same(applied, model, torch.randn(*shape, WIDTH, generator=generator), tolerance=1e-4)
