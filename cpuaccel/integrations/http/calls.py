"""The counters of optimized models for Prometheus: which model served how many calls."""

from collections.abc import Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from cpuaccel.integrations.tasks.served import ServedModel


class CallsCollector(Collector):
    """Collects ``report.calls`` of tasks, and how many of their variants are switched off."""

    def __init__(self, tasks: Mapping[str, ServedModel]) -> None:
        self._tasks = dict(tasks)

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics as they are now."""
        calls = CounterMetricFamily(
            "cpuaccel_calls", "Calls of the model, by what served them", labels=["task", "key"]
        )
        off = GaugeMetricFamily(
            "cpuaccel_faults", "Variants that are switched off", labels=["task"]
        )
        for name, task in self._tasks.items():
            for key, count in task.calls.items():
                calls.add_metric([name, key], count)
            off.add_metric([name], len(task.faults))
        yield calls
        yield off
