"""How many workers with how many threads, and batches of how many tokens: measured on this node."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import ray
import ray.data
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cpuaccel.errors import CpuaccelError
from cpuaccel.integrations.ray.data import Embed
from cpuaccel.integrations.ray.sharing import Shared

if TYPE_CHECKING:
    from cpuaccel.integrations.ray.data import Worker

TOKENS = (1024, 4096, 16_384)
"""Budgets that are tried."""

ROUNDS = 3


@dataclass(frozen=True)
class Choice:
    """One way to use a node: so many actors at the same time.

    Attributes:
        actors: actors on this node.
        threads: ``num_cpus`` of each.
        tokens: most real tokens of a batch.
        rows_per_second: of all actors together, the median of the rounds.
    """

    actors: int
    threads: int
    tokens: int
    rows_per_second: float

    def __str__(self) -> str:
        return (
            f"{self.actors} actors with {self.threads} threads, batches of {self.tokens} tokens: "
            f"{self.rows_per_second:.4g} rows per second"
        )


@dataclass(frozen=True)
class WorkerPlan:
    """What was measured.

    Attributes:
        choices: the fastest first.
    """

    choices: tuple[Choice, ...]

    @property
    def actors(self) -> int:
        """Actors on each node like this one, of the fastest choice."""
        return self.choices[0].actors

    @property
    def threads(self) -> int:
        """``num_cpus`` of each actor, of the fastest choice."""
        return self.choices[0].threads

    @property
    def tokens(self) -> int:
        """Most real tokens of a batch, of the fastest choice."""
        return self.choices[0].tokens

    def __str__(self) -> str:
        return "\n".join(map(str, self.choices))


def plan(
    ds: ray.data.Dataset,
    model: str | Path | Shared,
    *,
    worker: "type[Worker]" = Embed,
    sample: int = 512,
    column: str = "text",
    tokens: Sequence[int] = TOKENS,
    **options: Any,
) -> WorkerPlan:
    """Measure rows per second of this node by number of actors and tokens of a batch.

    All CPUs of this node have to be free: otherwise it waits for them. Each number of actors loads
    the model in as many processes.

    Args:
        ds: the dataset; its first rows are computed.
        model: see ``Embed``.
        worker: a class of this package.
        sample: rows to compute.
        column: the column with the texts.
        tokens: the budgets to try.
        **options: other arguments of ``worker``, such as ``pipeline``.

    Raises:
        CpuaccelError: the dataset has no rows, or this node no CPUs.
    """
    items = [row[column] for row in ds.take(sample)]
    if not items:
        raise CpuaccelError("the dataset has no rows to measure with. Pass one that has")
    here = ray.get_runtime_context().get_node_id()
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    cpus = next(int(n["Resources"].get("CPU", 0)) for n in nodes if n["NodeID"] == here)
    if not cpus:
        raise CpuaccelError(
            "this node has no CPUs for Ray. Call plan on a node like those that will compute"
        )
    choices: list[Choice] = []
    for threads in (2**n for n in range(cpus.bit_length())):
        arguments = (worker, str(model) if isinstance(model, Path) else model, column, options)
        choices += _measure(arguments, cpus // threads, threads, items, tokens, here)
    return WorkerPlan(tuple(sorted(choices, key=lambda choice: -choice.rows_per_second)))


def _measure(
    arguments: tuple[Any, ...],
    count: int,
    threads: int,
    items: list[Any],
    tokens: Sequence[int],
    node: str,
) -> list[Choice]:
    placed = NodeAffinitySchedulingStrategy(node, soft=False)
    probe: Any = ray.remote(_Probe).options(num_cpus=threads, scheduling_strategy=placed)
    actors = [probe.remote(*arguments) for _ in range(count)]
    rates: dict[int, list[float]] = {budget: [] for budget in tokens}
    try:
        for number in range(1 + ROUNDS):
            for budget in tokens:
                seconds = ray.get([actor.run.remote(items, budget) for actor in actors])
                if number:  # the first round builds variants
                    rates[budget].append(sum(len(items) / each for each in seconds))
    finally:
        for actor in actors:
            ray.kill(actor)
    return [
        Choice(count, threads, budget, statistics.median(found)) for budget, found in rates.items()
    ]


class _Probe:
    """An actor that computes the sample."""

    def __init__(
        self, worker: "type[Worker]", model: str | Shared, column: str, options: dict[str, Any]
    ) -> None:
        self._worker = worker(model, column=column, **options)
        self._column = column

    def run(self, items: list[Any], tokens: int) -> float:
        """Compute the sample in batches of so many tokens, and return the seconds."""
        self._worker.tokens = tokens
        texts = np.array(items, dtype=object)
        begun = time.perf_counter()
        self._worker({self._column: texts})
        return time.perf_counter() - begun
