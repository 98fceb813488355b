"""The arguments of a search."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypedDict

import torch

from cpuaccel.building.settings import BuildSettings
from cpuaccel.errors import CpuaccelError
from cpuaccel.model.precision import TOLERANCE, dtype_name, dtype_of
from cpuaccel.tuning.workers.use import Use

Metric = Callable[[list[object]], float]
Target = Literal["latency", "throughput"]
DEFAULT_BUDGET = 300.0

SHARE = 3
"""One candidate may take one in so many parts of the budget."""


class TuneArguments(TypedDict, total=False):
    """The arguments of ``optimize(model, "auto", ...)`` that concern the search.

    Attributes:
        budget: seconds for the search, by default 300. The winner is built again after it.
        target: ``latency`` of single calls, the default, or ``throughput``, for which several
            processes of the winner are measured as well.
        precisions: allowed precisions, of ``float32`` and ``bfloat16``; by default the model's.
        metric: called with the list of the outputs for all example batches, of the original and
            of each candidate, in this process; returns a number, of which more is better.
        max_drop: largest accepted difference of the metric below the original's, by default 0.
        generate: the arguments of ``generate``, such as ``{"max_new_tokens": 64}``: measure it
            instead of calls, on the prompts in ``example_inputs``. By default greedy, and as many
            new tokens as allowed. With one new token the time to the first token is measured.
        threads: number of torch's threads, by default the current one. ``auto`` searches for the
            fastest number within the allowed cores, and sets it in this process.
        traffic: share of calls per sequence length; the one example batch is cut or repeated to
            each length.
        lock: a lock file for the decision. A decision in it for the same host, versions and model
            is used without a search. If these have changed the search is repeated or, with
            ``strict``, an error raised. A ``budget`` that is passed and longer than that of an
            unfinished search repeats the search, too, unless ``strict``.
        cache: whether to read and write decisions in the user's cache folder, by default True.
            Not used with ``lock``.
        time_limit: seconds for the build and the verification of one candidate, by default a
            third of the budget.
        memory_limit: bytes that the processes of one candidate may hold, by default four fifths
            of the free memory.
    """

    budget: float
    target: Target
    precisions: Sequence[str]
    metric: Metric | None
    max_drop: float
    generate: Mapping[str, object] | None
    threads: int | Literal["auto"] | None
    traffic: Mapping[int, float] | None
    lock: str | Path | None
    cache: bool
    time_limit: float | None
    memory_limit: int | None


@dataclass(frozen=True, kw_only=True)
class Request:
    """Checked ``TuneArguments``, with the settings of the build."""

    settings: BuildSettings
    budget: float = DEFAULT_BUDGET
    target: Target = "latency"
    precisions: tuple[str, ...] = ("float32",)
    own_precision: str = "float32"
    """Of the model, the default of ``precisions``."""
    metric: Metric | None = None
    max_drop: float = 0.0
    generate: Mapping[str, object] | None = None
    threads: int | Literal["auto"] | None = None
    traffic: Mapping[int, float] | None = None
    lock: Path | None = None
    cache: bool = True
    time_limit: float | None = None
    memory_limit: int | None = None
    locked: bool = False
    """Whether only the lock file's decision is used, as with ``strict``; builds are not strict."""
    budget_passed: bool = False
    """A default budget does not search again where an unfinished search has a decision."""

    @classmethod
    def from_arguments(
        cls,
        model: torch.nn.Module,
        arguments: TuneArguments,
        settings: BuildSettings | None = None,
    ) -> "Request":
        """Check the arguments."""
        values = dict(arguments)
        if values.get("lock") is not None:
            values["lock"] = Path(str(values["lock"]))
        own = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
        values["own_precision"] = dtype_name(own)
        precisions = arguments.get("precisions", (dtype_name(own),))
        if isinstance(precisions, str):
            precisions = (precisions,)
        values["precisions"] = tuple(dict.fromkeys(map(_precision, precisions)))
        if arguments.get("generate") is not None:
            values["generate"] = _read_generate(model, arguments["generate"])
        values["budget_passed"] = "budget" in arguments
        request = cls(**values, settings=settings or BuildSettings())  # type: ignore[arg-type]
        request._check()
        return request

    @property
    def use(self) -> Use:
        """How the model is used."""
        return Use(self.generate)

    @property
    def widest_backend_tolerance(self) -> float:
        """The widest ``tolerance`` of a backend that is included.

        By default that of the precisions. A metric or a wider tolerance includes all backends.
        """
        default = max(TOLERANCE[getattr(torch, name)] for name in self.precisions)
        tolerance = self.settings.tolerance
        wider = tolerance is not None and tolerance > default
        return math.inf if self.metric is not None or wider else default

    @property
    def candidate_seconds(self) -> float:
        """The time limit of one candidate."""
        return self.time_limit or self.budget / SHARE

    def exceeds(self, unfinished_budget: float) -> bool:
        """Whether ``budget=`` was passed, and is longer than that of an unfinished search."""
        return self.budget_passed and self.budget > unfinished_budget

    @property
    def code(self) -> str:
        """The arguments of ``optimize`` that a decision depends on, except for defaults."""
        precisions = None if self.precisions == (self.own_precision,) else list(self.precisions)
        values = {
            "generate": None if self.generate is None else _without_defaults(self.generate),
            "precisions": precisions,
            "target": None if self.target == "latency" else self.target,
            "traffic": self.traffic,
            "threads": self.threads,
            "tolerance": self.settings.tolerance,
        }
        code = [f"{name}={value!r}" for name, value in values.items() if value is not None]
        if self.metric is not None:
            code += ["metric=metric", f"max_drop={self.max_drop!r}"]
        return ", ".join(code)

    def _check(self) -> None:
        if not self.precisions:
            raise CpuaccelError("precisions must not be empty. Pass float32, bfloat16 or both")
        if self.target not in ("latency", "throughput"):
            raise CpuaccelError(f"target must be 'latency' or 'throughput', got {self.target!r}")
        for name in ("budget", "time_limit", "memory_limit"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise CpuaccelError(f"{name} must be > 0, got {value!r}")
        if not self.max_drop >= 0:
            raise CpuaccelError(f"max_drop must be >= 0, got {self.max_drop!r}")
        if self.max_drop and self.metric is None:
            raise CpuaccelError("max_drop= needs metric=")
        threads = self.threads
        if threads not in (None, "auto") and not (isinstance(threads, int) and threads > 0):
            raise CpuaccelError(f"threads must be a whole number >= 1 or 'auto', got {threads!r}")
        if self.traffic is not None and (
            not self.traffic or not all(n > 0 and w > 0 for n, w in self.traffic.items())
        ):
            raise CpuaccelError(
                "traffic must have lengths and shares > 0, such as {128: 0.9, 384: 0.1}, got "
                f"{self.traffic!r}"
            )


def _read_generate(model: torch.nn.Module, generate: object) -> dict[str, object]:
    """Check the arguments of ``generate``, and add that all candidates generate as much."""
    if not callable(getattr(model, "generate", None)):
        raise CpuaccelError(
            f"generate= needs a model with generate, got a {type(model).__name__}. Leave it out"
        )
    if not isinstance(generate, Mapping) or "max_new_tokens" not in generate:
        raise CpuaccelError(
            'generate must be a mapping with max_new_tokens, such as {"max_new_tokens": 64}, got '
            f"{generate!r}"
        )
    for name, value in generate.items():
        if not isinstance(value, bool | int | float | str | None):
            raise CpuaccelError(
                f"generate must have plain values, for processes of their own, got {name}="
                f"{value!r}. Leave it out"
            )
    return {**_generate_defaults(generate), **generate}


def _generate_defaults(generate: Mapping[str, object]) -> dict[str, object]:
    return {"do_sample": False, "min_new_tokens": generate["max_new_tokens"]}


def _without_defaults(generate: Mapping[str, object]) -> dict[str, object]:
    defaults = _generate_defaults(generate).items()
    return {name: value for name, value in generate.items() if (name, value) not in defaults}


def _precision(name: str) -> str:
    dtype = dtype_of(name)
    assert dtype is not None
    return dtype_name(dtype)
