"""What a search is asked for."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypedDict

import torch

from cpuaccel.building.settings import BuildSettings
from cpuaccel.errors import CpuaccelError
from cpuaccel.model.precision import TOLERANCE, dtype_name, dtype_of
from cpuaccel.tuning.metric import Metric

Target = Literal["latency", "throughput"]
DEFAULT_BUDGET = 300.0

SHARE = 3
"""No candidate may take more than one in so many parts of the budget."""


class TuneArguments(TypedDict, total=False):
    """What ``optimize(model, "auto", ...)`` takes besides what it always takes.

    Attributes:
        budget: seconds for the search, 300 by default. The winner is built once more after it.
        target: ``latency`` of one call, by default, or ``throughput``: several instances of the
            winner side by side are tried as well.
        precisions: what may be computed in, of ``float32`` and ``bfloat16``; by default the
            model's own alone.
        metric: takes the list of the outputs for all example batches and returns a number, of
            which more is better. It is called in this process, on the original's outputs and on
            each candidate's.
        max_drop: how much less than on the original the metric may be, 0 by default.
        threads: torch's threads, equal for all; ``auto`` looks for the count that serves best
            within the cores allowed, and leaves this process with it. By default torch's own.
        traffic: how often which length is called: the one example batch is cut or repeated to
            each length.
        lock: a file to keep the decision in. Where it holds one for the same host, versions and
            model it is used without a search. Where these have changed the search is made again,
            or with ``strict`` refused.
        cache: whether decisions are kept in, and taken from, the user's cache folder. Default
            True; not used where a lock is.
        time_limit: seconds that one candidate may take to be built and proven, by default a
            third of the budget.
        memory_limit: bytes that one candidate's processes may hold, by default four fifths of
            what is free.
    """

    budget: float
    target: Target
    precisions: Sequence[str]
    metric: Metric | None
    max_drop: float
    threads: int | Literal["auto"] | None
    traffic: Mapping[int, float] | None
    lock: str | Path | None
    cache: bool
    time_limit: float | None
    memory_limit: int | None


@dataclass(frozen=True, kw_only=True)
class Request:
    """The same, checked and with its defaults. See ``TuneArguments``.

    Attributes:
        settings: how candidates and the winner are built. With ``strict``, a decision that no
            longer fits is an error instead of the start of a new search.
    """

    settings: BuildSettings
    budget: float = DEFAULT_BUDGET
    target: Target = "latency"
    precisions: tuple[str, ...] = ("float32",)
    metric: Metric | None = None
    max_drop: float = 0.0
    threads: int | Literal["auto"] | None = None
    traffic: Mapping[int, float] | None = None
    lock: Path | None = None
    cache: bool = True
    time_limit: float | None = None
    memory_limit: int | None = None

    @classmethod
    def from_arguments(
        cls,
        model: torch.nn.Module,
        arguments: TuneArguments,
        settings: BuildSettings | None = None,
    ) -> "Request":
        """Check what was passed.

        Raises:
            CpuaccelError: names the first argument that can't be right.
        """
        given = dict(arguments)
        if given.get("lock") is not None:
            given["lock"] = Path(str(given["lock"]))
        own = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
        precisions = arguments.get("precisions", (dtype_name(own),))
        if isinstance(precisions, str):
            precisions = (precisions,)
        given["precisions"] = tuple(dict.fromkeys(map(_precision, precisions)))
        request = cls(**given, settings=settings or BuildSettings())  # type: ignore[arg-type]
        request._check()
        return request

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
        """How long one candidate may take."""
        return self.time_limit or self.budget / SHARE

    def _check(self) -> None:
        if not self.precisions:
            raise CpuaccelError("precisions is empty. Name float32, bfloat16 or both")
        if self.target not in ("latency", "throughput"):
            raise CpuaccelError(
                f"target={self.target!r} was asked for. Pass 'latency' or 'throughput'"
            )
        for name in ("budget", "time_limit", "memory_limit"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise CpuaccelError(f"{name}={value!r} was asked for. Pass a number above 0")
        if not self.max_drop >= 0:
            raise CpuaccelError(
                f"max_drop={self.max_drop!r} was asked for. Pass a number from 0 up"
            )
        if self.max_drop and self.metric is None:
            raise CpuaccelError("max_drop was given without a metric. Pass metric= as well")
        threads = self.threads
        if (
            threads is not None
            and threads != "auto"
            and not (isinstance(threads, int) and threads > 0)
        ):
            raise CpuaccelError(
                f"threads={threads!r} was asked for. Pass a whole number from 1 up, or 'auto'"
            )
        if self.traffic is not None and (
            not self.traffic or not all(n > 0 and w > 0 for n, w in self.traffic.items())
        ):
            raise CpuaccelError(
                "traffic must name at least one length, each with a share above 0, as in "
                "{128: 0.9, 384: 0.1}"
            )


def _precision(name: str) -> str:
    dtype = dtype_of(name)
    assert dtype is not None
    return dtype_name(dtype)
