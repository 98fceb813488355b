"""What exporters need in order to leave batch and length open."""

from collections.abc import Mapping

import pytest
import torch

import cpuaccel
from cpuaccel_plugins.common.open_sizes import export_open, fixed_size, open_axes


class Column(torch.nn.Module):
    """Takes one channel only."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv1d(1, 2, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x)  # type: ignore[no-any-return]


class FixesRows(torch.nn.Module):
    """Fixes the number of rows, as a detector does that keeps sizes for its next call."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.rows = int(x.shape[0])
        return x.reshape(self.rows, -1) * 2


class OneRow(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[0] != 1:
            raise ValueError("one row only")
        return x.squeeze(0)


def exported(model: torch.nn.Module, *shape: int) -> torch.export.ExportedProgram:
    signature = cpuaccel.Signature.from_inputs(model.eval(), torch.ones(shape))

    def export(example: Mapping[str, torch.Tensor]) -> torch.export.ExportedProgram:
        axes = (open_axes(signature)["x"],)
        return torch.export.export(model, tuple(example.values()), dynamic_shapes=axes)

    return export_open(export, is_fixed, model, signature)


def is_fixed(program: torch.export.ExportedProgram, name: str, axis: int) -> bool:
    (size,) = [n.meta["val"].shape[axis] for n in program.graph.nodes if n.name == name]
    return fixed_size(size) is not None


def test_one_row_is_exported_with_any_number_of_rows() -> None:
    program = exported(Column(), 1, 1, 8)
    assert not is_fixed(program, "x", 0)
    assert is_fixed(program, "x", 1)
    assert program.module()(torch.ones(3, 1, 8)).shape == (3, 2, 6)


@pytest.mark.parametrize("model", [FixesRows(), OneRow()], ids=lambda model: type(model).__name__)
def test_rows_that_the_model_fixes_stay_those_of_the_example(model: torch.nn.Module) -> None:
    program = exported(model, 1, 4)
    assert is_fixed(program, "x", 0)
    assert torch.equal(program.module()(torch.ones(1, 4)), model(torch.ones(1, 4)))


def test_an_export_that_fails_on_what_the_model_takes_raises_its_error() -> None:
    calls = []

    def export(example: Mapping[str, torch.Tensor]) -> None:
        calls.append(example["input"].shape)
        raise RuntimeError("not exportable")

    signature = cpuaccel.Signature.from_inputs(torch.nn.ReLU(), torch.ones(1, 1))
    with pytest.raises(RuntimeError, match="not exportable"):
        export_open(export, lambda *_: False, torch.nn.ReLU(), signature)
    assert calls == [(2, 2)]
    assert signature.tensor_inputs["input"].shape == (1, 1)
