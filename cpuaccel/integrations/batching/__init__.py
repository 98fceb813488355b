"""Batches by tokens: of rows that many callers send, or of a list of rows."""

from cpuaccel.errors import ClosedError as ClosedError
from cpuaccel.errors import QueueFullError as QueueFullError
from cpuaccel.integrations.batching.batcher import Answer as Answer
from cpuaccel.integrations.batching.batcher import Batcher as Batcher
from cpuaccel.integrations.batching.groups import group_by_tokens as group_by_tokens
from cpuaccel.integrations.batching.task import Task as Task
