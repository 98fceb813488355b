"""The backend under test with a model and inputs for it. Subclasses override any of them."""

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
import torch

import cpuaccel
from cpuaccel.testing.models import MaskedEncoder

TOLERANCE = {"float32": 1e-4, "bfloat16": 5e-2}
"""Largest accepted difference, relative to the largest magnitude in the original's tensor."""


class Subject:
    """The backend under test.

    Attributes:
        backend: its name. Required.
        options: the options under test.
        after: names of the steps before it, for a backend that does not take a module.
        dtypes: the precisions that it supports.
        varies: what may differ between calls: ``batch``, ``length``, ``left padding``,
            ``right padding``. Leave out what the model doesn't have (images have no length) and
            what the engine leaves to the original.
        needs: what the engine needs of the host in addition to the backend's ``requires``, each
            with whether this host has it: ``{"AVX512": "avx512f" in cpuaccel.host().isa}``. Where
            one is missing, the tests that run the engine are skipped.
    """

    backend: ClassVar[str]
    options: ClassVar[Mapping[str, Any]] = {}
    after: ClassVar[tuple[str, ...]] = ()
    dtypes: ClassVar[tuple[str, ...]] = ("float32", "bfloat16")
    varies: ClassVar[tuple[str, ...]] = ("batch", "length", "left padding", "right padding")
    needs: ClassVar[Mapping[str, bool]] = {}
    _optimized: ClassVar[cpuaccel.OptimizedModel]

    def model(self) -> torch.nn.Module:
        """Make a model that the backend accepts, in eval mode, always with the same weights."""
        return MaskedEncoder.seeded()

    def example_inputs(self) -> dict[str, torch.Tensor]:
        """Make inputs of the model by parameter name, the same on every call."""
        generator = torch.Generator().manual_seed(0)
        return {
            "input_ids": torch.randint(3, 50, (2, 12), generator=generator),
            "attention_mask": torch.ones(2, 12, dtype=torch.long),
        }

    def offered(self, name: str) -> type[cpuaccel.Backend[cpuaccel.Options]]:
        """Look up the backend class that a plugin offers under a name."""
        offered = cpuaccel.backends()
        assert name in offered, (
            f"no plugin offers the backend {name!r}. Install your distribution, and check the "
            f"module in its entry point of the group 'cpuaccel'. Available: {list(offered)}. "
            f"Failed to load: {cpuaccel.plugin_host().broken}"
        )
        return offered[name]

    @property
    def backend_class(self) -> type[cpuaccel.Backend[cpuaccel.Options]]:
        """The backend class under test."""
        return self.offered(self.backend)

    def tolerance(self, dtype: str = "float32") -> float:
        """Largest accepted relative difference: the larger of the precision's and the backend's."""
        return max(TOLERANCE[dtype], self.backend_class.tolerance)

    def instance(self) -> cpuaccel.Backend[cpuaccel.Options]:
        """Make the backend with the options under test."""
        return self.backend_class(self.backend_class.Options(**self.options))

    def steps(self) -> list[cpuaccel.Step]:
        """Make the pipeline under test."""
        earlier = [cpuaccel.Step(name) for name in self.after]
        return [*earlier, cpuaccel.Step(self.backend, **self.options)]

    def need_engine(self) -> None:
        """Skip the test if this host lacks a step's ``requires`` or one of ``needs``.

        The test fails if ``check`` or ``accepts`` refuses although nothing is missing: if verdicts
        decided what runs, a wrong verdict would skip the test that shows it.
        """
        host = cpuaccel.host()
        for step in self.steps():
            installed = host.meets(*self.offered(step.backend).requires)
            if not installed:
                pytest.skip(f"{step.backend}: {installed}")
        if missing := [need for need, present in self.needs.items() if not present]:
            pytest.skip(f"this host lacks {' and '.join(missing)}")
        for planned in cpuaccel.explain(self.model(), self.steps()).steps:
            assert planned.verdict, (
                f"{planned.step.backend} refuses this host or model although its requirements are "
                f"met: {planned.verdict}. If the engine needs more, add it to needs"
            )

    def need_dtype(self, dtype: str) -> None:
        """Skip the test if the backend or this host does not support a precision."""
        if dtype not in self.dtypes:
            pytest.skip(f"{self.backend} does not support {dtype}")
        if dtype == "bfloat16" and not (verdict := cpuaccel.host().bf16()):
            pytest.skip(str(verdict))

    def optimize(self, model: torch.nn.Module, dtype: str | None = None) -> cpuaccel.OptimizedModel:
        """Optimize with ``strict=True``: a skipped step and a fallback raise."""
        self.need_engine()
        return cpuaccel.optimize(
            model, self.steps(), example_inputs=self.example_inputs(), dtype=dtype, strict=True
        )

    def optimized_once(self) -> cpuaccel.OptimizedModel:
        """Optimize the model at the first call; later calls in tests of this class share it.

        Only for tests that leave it as it is: some engines compile for many seconds.
        """
        if "_optimized" not in vars(type(self)):
            type(self)._optimized = self.optimize(self.model())
        return self._optimized
