"""What is under test: a backend, a model for it, and inputs; all of it can be overridden."""

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
import torch

import cpuaccel
from cpuaccel.testing.models import MaskedEncoder

TOLERANCE = {"float32": 1e-4, "bfloat16": 5e-2}
"""Largest difference, relative to the largest magnitude in the original's tensor."""


class Subject:
    """The backend under test.

    Attributes:
        backend: its name. The only thing that has to be set.
        options: options to test it with.
        after: steps that must come before it, for a backend that takes no plain module.
        dtypes: the precisions that it supports.
        varies: what may differ from call to call: ``batch``, ``length``, ``left padding``,
            ``right padding``. Take out what the model itself can't have (images have no length),
            or what the engine leaves to the original.
        needs: facts about this host that the engine needs beside the backend's ``requires``, such
            as ``{"AVX512": "avx512f" in cpuaccel.host().isa}``. Where one is false, the tests that
            run the engine are skipped.
    """

    backend: ClassVar[str]
    options: ClassVar[Mapping[str, Any]] = {}
    after: ClassVar[tuple[str, ...]] = ()
    dtypes: ClassVar[tuple[str, ...]] = ("float32", "bfloat16")
    varies: ClassVar[tuple[str, ...]] = ("batch", "length", "left padding", "right padding")
    needs: ClassVar[Mapping[str, bool]] = {}

    def model(self) -> torch.nn.Module:
        """A model in eval mode that the backend accepts; the same weights on every call."""
        return MaskedEncoder.seeded()

    def example_inputs(self) -> dict[str, torch.Tensor]:
        """Inputs of the model by parameter name."""
        generator = torch.Generator().manual_seed(0)
        return {
            "input_ids": torch.randint(3, 50, (2, 12), generator=generator),
            "attention_mask": torch.ones(2, 12, dtype=torch.long),
        }

    def offered(self, name: str) -> type[cpuaccel.Backend[cpuaccel.Options]]:
        """The class that a plugin offers under a name."""
        offered = cpuaccel.backends()
        assert name in offered, (
            f"no plugin offers {name!r}. Is your distribution installed, and does its "
            f"entry point in the group 'cpuaccel' name the right module? Offered: {list(offered)}; "
            f"failed to load: {cpuaccel.plugin_host().broken}"
        )
        return offered[name]

    @property
    def backend_class(self) -> type[cpuaccel.Backend[cpuaccel.Options]]:
        """The class under test."""
        return self.offered(self.backend)

    def tolerance(self, dtype: str = "float32") -> float:
        """Largest relative difference in a precision, or more where the backend says so."""
        return max(TOLERANCE[dtype], self.backend_class.tolerance)

    def instance(self) -> cpuaccel.Backend[cpuaccel.Options]:
        """The backend with the options under test."""
        return self.backend_class(self.backend_class.Options(**self.options))

    def steps(self) -> list[cpuaccel.Step]:
        """The pipeline under test."""
        earlier = [cpuaccel.Step(name) for name in self.after]
        return [*earlier, cpuaccel.Step(self.backend, **self.options)]

    def need_engine(self) -> None:
        """Skip the test where this host lacks what the pipeline requires or what ``needs`` says.

        A ``check`` or ``accepts`` that refuses where nothing is lacking fails the test: if it
        decided what runs, its own mistakes would be skipped.
        """
        host = cpuaccel.host()
        for step in self.steps():
            installed = host.meets(*self.offered(step.backend).requires)
            if not installed:
                pytest.skip(f"{step.backend}: {installed}")
        if lacking := [fact for fact, holds in self.needs.items() if not holds]:
            pytest.skip(f"this host lacks {' and '.join(lacking)}")
        for planned in cpuaccel.explain(self.model(), self.steps()).steps:
            assert planned.verdict, (
                f"{planned.step.backend} refuses this host or model, though its requirements are "
                f"met: {planned.verdict}. If its engine needs more, say so in needs"
            )

    def need_dtype(self, dtype: str) -> None:
        """Skip the test where the backend or this host does not compute in a precision."""
        if dtype not in self.dtypes:
            pytest.skip(f"{self.backend} does not support {dtype}")
        if dtype == "bfloat16" and not (verdict := cpuaccel.host().bf16()):
            pytest.skip(str(verdict))

    def optimize(self, model: torch.nn.Module, dtype: str | None = None) -> cpuaccel.OptimizedModel:
        """Optimize strictly: anything that is not as it should be raises."""
        return cpuaccel.optimize(
            model, self.steps(), example_inputs=self.example_inputs(), dtype=dtype, strict=True
        )
