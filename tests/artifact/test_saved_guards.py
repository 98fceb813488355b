"""Size guards in JSON decide as those that were saved."""

from collections.abc import Callable

import pytest
import torch

from cpuaccel.artifact.mapping.saved_guards import SavedGuards
from tests.checks.test_size_guards import (
    Module,
    branch,
    guards_of,
    loop,
    remainder,
    rounded,
    sliced,
)
from tests.required import requires

pytestmark = requires("torch>=2.1")


def rounded_to_digits(x: torch.Tensor) -> torch.Tensor:
    return x * round(x.shape[1] / 4, 1)


def constant(x: torch.Tensor) -> dict[str, object]:
    return {"x": x, "tokens": x.shape[1] + x.shape[0]}


@pytest.mark.parametrize(
    "function", [branch, remainder, loop, rounded, sliced, rounded_to_digits, constant]
)
def test_they_decide_the_same(function: Callable[[torch.Tensor], object]) -> None:
    guards = guards_of(Module(function), x=torch.ones(2, 8, 4))
    text = SavedGuards.from_guards(guards).model_dump_json()
    restored = SavedGuards.model_validate_json(text).to_guards()
    assert len(restored.guards) == len(guards.guards)
    for length in range(2, 20):
        sizes = {"batch": 2, "length": length, "x[2]": 4}
        was, is_ = guards.violated(sizes), restored.violated(sizes)
        assert (was is None) == (is_ is None)
        assert was is None or is_ is None or is_.place == was.place
