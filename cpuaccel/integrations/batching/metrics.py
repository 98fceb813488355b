"""A batcher's counters for Prometheus."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from cpuaccel.integrations.batching.batcher import Batcher

try:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
    from prometheus_client.registry import Collector
except ImportError as error:
    raise ImportError(
        "cpuaccel.integrations.batching.metrics needs prometheus-client, which can't be imported "
        f'({error}). Run: pip install ".[serving]"'
    ) from error

_COUNTERS = {
    "requests": "Accepted requests",
    "answered": "Requests that got all outputs",
    "failed": "Requests of which a row failed",
    "cancelled": "Requests that were cancelled or timed out",
    "rejected": "Requests that did not fit into the queue",
    "rows": "Rows computed",
    "tokens": "Real tokens computed",
    "padded": "Positions of the batches, with padding",
    "batches": "Batches computed",
    "retries": "Batches that raised, and were computed in parts",
    "computing": "Seconds that workers computed",
    "waiting": "Seconds that rows waited",
}
_SECONDS = ("computing", "waiting")


class BatcherCollector(Collector):
    """Collects the counters of batchers, with the label ``batcher``.

    Example:

        prometheus_client.REGISTRY.register(BatcherCollector({"embeddings": batcher}))
    """

    def __init__(self, batchers: Mapping[str, Batcher[Any, Any, Any]]) -> None:
        self._batchers = dict(batchers)

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics as they are now."""
        stats = {name: asdict(batcher.stats) for name, batcher in self._batchers.items()}
        for key, text in _COUNTERS.items():
            unit = "_seconds" if key in _SECONDS else ""
            metric = CounterMetricFamily(f"cpuaccel_batcher_{key}{unit}", text, labels=["batcher"])
            for name, counters in stats.items():
                metric.add_metric([name], counters[key])
            yield metric
        gauge = GaugeMetricFamily(
            "cpuaccel_batcher_waiting_tokens", "Tokens that wait", labels=["batcher"]
        )
        for name, batcher in self._batchers.items():
            gauge.add_metric([name], batcher.waiting[1])
        yield gauge
