"""The backend under test, as one that generates."""

from typing import Any, ClassVar

import pytest
import torch

import cpuaccel
from cpuaccel.testing.generation.decoders import tiny_decoder
from cpuaccel.testing.subject import Subject

GENERATION = ("torch>=2.6", "transformers>=5")
"""The first versions in which ``generate`` is served."""


class GenerationSubject(Subject):
    """The backend under test.

    Attributes:
        architectures: the decoders that it must serve.
    """

    architectures: ClassVar[tuple[str, ...]] = ("llama", "gpt2")

    def decoder(self, architecture: str) -> Any:
        """Make a decoder in eval mode, always with the same weights."""
        return tiny_decoder(architecture)

    def need_generation(self) -> None:
        """Skip the test if this host lacks what ``generate`` or the backend requires.

        The test fails if ``check_generation`` refuses although nothing is missing.
        """
        host = cpuaccel.host()
        for requirements in (GENERATION,), self.backend_class.requires:
            if not (installed := host.meets(*requirements)):
                pytest.skip(f"{self.backend}: {installed}")
        if missing := [need for need, present in self.needs.items() if not present]:
            pytest.skip(f"this host lacks {' and '.join(missing)}")
        verdict = self.instance().check_generation(host)
        assert verdict, f"{self.backend} refuses although its requirements are met: {verdict}"

    def generating(self, model: Any, **settings: Any) -> Any:
        """Optimize a decoder and build its stepper; by default, a fallback raises."""
        self.need_generation()
        fast: Any = cpuaccel.optimize(model, self.steps(), **{"strict": True, **settings})
        fast.prepare_generation()
        return fast

    def stepper(self, model: Any, unload: cpuaccel.Unload | None = None) -> cpuaccel.Stepper:
        """Build a stepper alone."""
        self.need_generation()
        with torch.no_grad():
            return self.instance().stepper(model, cpuaccel.host(), unload)
