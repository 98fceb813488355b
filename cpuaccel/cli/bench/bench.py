"""What benchmarks of calls and of ``generate`` have in common."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import torch

from cpuaccel.cli.bench.results import EAGER, Row, RowStatus
from cpuaccel.cli.models.cases import Case
from cpuaccel.pipeline import Pipeline
from cpuaccel.plugin.host import Host

DEFAULT_ROUNDS = 40
DEFAULT_SECONDS = 12.0
"""For one case in one precision, over all pipelines."""

RowT = TypeVar("RowT", bound=Row)


@dataclass
class Bench(ABC, Generic[RowT]):
    """One benchmark of a model in float32 and eval mode.

    Attributes:
        progress: called with the share that is done, from 0 to 1, and the activity.
        seconds: no round starts after this long, in one case and precision.
        results: a row for each case, precision and pipeline so far.
    """

    model: torch.nn.Module
    pipelines: Mapping[str, Pipeline]
    cases: Sequence[Case]
    dtypes: Sequence[str]
    host: Host
    threads: int
    progress: Callable[[float, str], None]
    rounds: int
    seconds: float
    results: list[RowT] = field(default_factory=list)
    done: float = 0.0

    def run(self) -> None:
        """Measure all pipelines."""
        threads = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        verdict = self.host.bf16()
        try:
            self._prepare()
            for dtype in self.dtypes:
                if dtype == "bfloat16" and not verdict:
                    self._refuse(dtype, str(verdict))
                else:
                    self._run_dtype(dtype)
            self.progress(1, "done")
        finally:
            torch.set_num_threads(threads)

    def _prepare(self) -> None:
        """Do what precedes the first precision."""

    @abstractmethod
    def _run_dtype(self, dtype: str) -> None:
        """Build and time the pipelines in one precision."""

    @abstractmethod
    def _row(
        self, dtype: str, pipeline: str, case: Case, status: RowStatus, notes: tuple[str, ...]
    ) -> RowT:
        """Make a row without figures."""

    def _refuse(self, dtype: str, reason: str) -> None:
        for case in self.cases:
            for name in (EAGER, *self.pipelines):
                self.results.append(self._row(dtype, name, case, RowStatus.REFUSED, (reason,)))
        self.done += len(self.pipelines) + len(self.cases)

    def _advance(self, units: float, doing: str) -> None:
        self.done += units
        total = len(self.dtypes) * (len(self.pipelines) + len(self.cases))
        self.progress(min(self.done / total, 1), doing)
