"""The counters of a ``Batcher``."""

from dataclasses import dataclass


@dataclass
class Stats:
    """Counters since the start.

    Attributes:
        requests: accepted requests.
        answered: requests that got all outputs.
        failed: requests of which a row failed.
        cancelled: requests that their callers cancelled or no longer waited for.
        rejected: requests that did not fit into the queue.
        rows: rows computed.
        tokens: real tokens computed.
        padded: positions computed or held for them, with padding.
        batches: batches computed.
        retries: batches that raised, and were computed in parts.
        computing: seconds that workers computed.
        waiting: seconds that rows waited, summed up.
    """

    requests: int = 0
    answered: int = 0
    failed: int = 0
    cancelled: int = 0
    rejected: int = 0
    rows: int = 0
    tokens: int = 0
    padded: int = 0
    batches: int = 0
    retries: int = 0
    computing: float = 0.0
    waiting: float = 0.0
