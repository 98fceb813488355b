"""The Prometheus collector."""

import pytest

prometheus_client = pytest.importorskip("prometheus_client")

from cpuaccel.integrations.batching import Batcher  # noqa: E402
from cpuaccel.integrations.batching.metrics import BatcherCollector  # noqa: E402
from tests.integrations.batching.tasks import Shout  # noqa: E402


def test_counters_are_collected_with_the_name_of_their_batcher() -> None:
    registry = prometheus_client.CollectorRegistry()
    with Batcher(Shout()) as batcher:
        registry.register(BatcherCollector({"words": batcher}))
        batcher.compute(["aa", "b"])
    value = registry.get_sample_value
    assert value("cpuaccel_batcher_rows_total", {"batcher": "words"}) == 2
    assert value("cpuaccel_batcher_tokens_total", {"batcher": "words"}) == 3
    assert value("cpuaccel_batcher_waiting_tokens", {"batcher": "words"}) == 0
    assert value("cpuaccel_batcher_computing_seconds_total", {"batcher": "words"}) is not None
