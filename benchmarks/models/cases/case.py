"""What one row of the table is: a user's object, the module in it to optimize, and its calls."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import cpuaccel

Object = Any
"""What a package gives its users: a module, a pipeline, an estimator."""

LAYERS = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
}
"""The size of most Transformers models here."""

T5 = {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4}
"""The size of T5 and what is based on it."""


@dataclass(frozen=True)
class Case:
    """A model of a package, used as its users use it.

    Attributes:
        package: the distribution that defines the model.
        name: the model, as the table shows it.
        make: returns the user's object, with the same random weights after the same seed.
        calls: use the object with different sizes; random numbers give the values.
        path: of the module to optimize in the object; empty if the object is the module.
        accelerate: optimizes an object of a package that has an integration.
        copied_to: path of the copy that serves the calls, where the package copies the module.
    """

    package: str
    name: str
    make: Callable[[], Object]
    calls: Sequence[Callable[[Object], object]]
    path: str = ""
    accelerate: Callable[[Object, list[str]], Object] | None = None
    copied_to: str = ""

    def optimize(self, thing: Object, backends: list[str]) -> Object:
        """Return the object with the optimized module in its place."""
        if self.accelerate is not None:
            return self.accelerate(thing, backends)
        if not self.path:
            return cpuaccel.optimize(thing, backends)
        parents, _, name = self.path.rpartition(".")
        owner = _follow(thing, parents)
        setattr(owner, name, cpuaccel.optimize(getattr(owner, name), backends))
        return thing

    def report(self, thing: Object) -> cpuaccel.Report:
        """Return the report of the optimized module in the object."""
        fast = _follow(thing, self.copied_to or self.path)
        if not isinstance(fast, cpuaccel.OptimizedModel):
            raise TypeError(f"{self.path} is no longer an optimized model: {type(fast).__name__}")
        return fast.report


def _follow(thing: Object, path: str) -> Object:
    return reduce(getattr, path.split("."), thing) if path else thing
