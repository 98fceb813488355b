"""The batcher: batches, back-pressure, cancelling, faults and closing."""

import asyncio
import multiprocessing
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from cpuaccel.errors import ClosedError, CpuaccelError, ForkError, QueueFullError
from cpuaccel.integrations.batching import Batcher
from tests.integrations.batching.tasks import PoisonError, Shout, Word

Words = Batcher[str, Word, str]


@contextmanager
def busy(tokens: int = 100, queue: int | None = None) -> Iterator[tuple[Words, Shout]]:
    """A batcher whose only worker computes a batch until ``go`` is set."""
    task = Shout(held=True)
    with Batcher(task, tokens=tokens, queue=queue) as batcher:
        batcher.submit(task.encode(["first"]))
        task.begun.wait()
        try:
            yield batcher, task
        finally:
            task.go.set()


def test_outputs_are_in_order() -> None:
    with Batcher(Shout(), tokens=4) as batcher:
        answer = batcher.compute(["ccc", "a", "bb", "dddd", ""])
    assert answer.outputs == ["CCC", "A", "BB", "DDDD", ""]
    assert answer.tokens == 10


def test_no_rows() -> None:
    with Batcher(Shout()) as batcher:
        assert batcher.compute([]).outputs == []


def test_what_waits_becomes_one_batch() -> None:
    with busy() as (batcher, task):
        futures = [batcher.submit(task.encode([word])) for word in ("b", "a", "c")]
        task.go.set()
        assert [future.result() for future in futures] == [["B"], ["A"], ["C"]]
    assert task.batches == [["first"], ["b", "a", "c"]]


def test_a_batch_has_at_most_its_tokens_and_similar_rows() -> None:
    with busy(tokens=8) as (batcher, task):
        future = batcher.submit(task.encode(["aaaa", "b" * 8, "cccc", "d" * 7]))
        task.go.set()
        future.result()
    assert task.batches[1:] == [["aaaa", "cccc"], ["b" * 8], ["d" * 7]]


def test_stats() -> None:
    with busy() as (batcher, task):
        batcher.submit(task.encode(["aa", "b"]))
        assert batcher.waiting == (2, 3)
        task.go.set()
    stats = batcher.stats
    assert (stats.requests, stats.answered, stats.batches) == (2, 2, 2)
    assert (stats.rows, stats.tokens, stats.padded) == (3, 8, 9)
    assert stats.waiting > 0


def test_only_the_bad_row_fails() -> None:
    with busy() as (batcher, task):
        futures = [batcher.submit(task.encode([w])) for w in ("a", "bad", "c", "d", "e")]
        task.go.set()
        assert [f.result() for f in futures if f is not futures[1]] == [["A"], ["C"], ["D"], ["E"]]
        with pytest.raises(PoisonError, match="bad"):
            futures[1].result()
    assert batcher.stats.failed == 1
    assert batcher.stats.answered == 5
    assert batcher.stats.retries > 0


def test_a_request_with_a_bad_row_fails_and_the_batcher_goes_on() -> None:
    with Batcher(Shout()) as batcher:
        with pytest.raises(PoisonError):
            batcher.compute(["a", "bad", "c", "bad too"])
        assert batcher.compute(["a"]).outputs == ["A"]
    assert batcher.stats.failed == 1


def test_a_task_that_loses_rows_fails() -> None:
    class Loses(Shout):
        def run(self, rows: object) -> list[str]:
            return []

    with Batcher(Loses()) as batcher, pytest.raises(CpuaccelError, match="0 outputs for 1 rows"):
        batcher.compute(["a"])


def test_a_full_queue_refuses_all_rows_of_a_request() -> None:
    with busy(tokens=10, queue=10) as (batcher, task):
        kept = batcher.submit(task.encode(["aaaa", "bbb"]))
        with pytest.raises(QueueFullError, match="7 of 10") as caught:
            batcher.submit(task.encode(["c", "ddd"]))
        assert caught.value.retry_after > 0
        assert batcher.waiting == (2, 7)
        fits = batcher.submit(task.encode(["eee"]))
        task.go.set()
        assert kept.result() == ["AAAA", "BBB"]
        assert fits.result() == ["EEE"]
    assert batcher.stats.rejected == 1


def test_a_cancelled_request_leaves_the_queue_and_is_not_computed() -> None:
    with busy() as (batcher, task):
        cancelled, other = (batcher.submit(task.encode([word])) for word in ("gone", "here"))
        assert cancelled.cancel()
        assert batcher.waiting == (1, 4)
        task.go.set()
        assert other.result() == ["HERE"]
    assert task.batches == [["first"], ["here"]]
    assert batcher.stats.cancelled == 1


def test_a_request_can_be_cancelled_while_it_is_computed() -> None:
    with busy() as (batcher, task):
        task.begun.clear()
        first = batcher.submit(task.encode(["a"]))
        other = batcher.submit(task.encode(["b"]))
        task.go.set()
        first.cancel()
        assert other.result() == ["B"]


def test_a_timeout_takes_the_rows_out() -> None:
    with busy() as (batcher, _):
        with pytest.raises(TimeoutError):
            batcher.compute(["late"], timeout=0.01)
        assert batcher.waiting == (0, 0)


def test_asyncio() -> None:
    async def main() -> None:
        with Batcher(Shout(), tokens=5) as batcher:
            answers = await asyncio.gather(
                *(batcher.acompute([str(n), "x" * (n % 4)]) for n in range(50)),
                batcher.acompute(["bad"]),
                return_exceptions=True,
            )
        assert isinstance(answers.pop(), PoisonError)
        outputs = [answer.outputs for answer in answers if not isinstance(answer, BaseException)]
        assert outputs == [[str(n), "X" * (n % 4)] for n in range(50)]

    asyncio.run(main())


def test_asyncio_timeout_and_cancellation_take_the_rows_out() -> None:
    async def main(batcher: Words) -> None:
        with pytest.raises(TimeoutError):
            await batcher.acompute(["late"], timeout=0.01)
        assert batcher.waiting == (0, 0)
        call = asyncio.create_task(batcher.acompute(["cancelled"]))
        while batcher.waiting == (0, 0):
            await asyncio.sleep(0.001)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert batcher.waiting == (0, 0)

    with busy() as (batcher, _):
        asyncio.run(main(batcher))


def test_many_threads_get_their_own_outputs() -> None:
    def call(number: int) -> bool:
        words = [f"{number}-{'x' * (n * number % 7)}" for n in range(5)]
        return batcher.compute(words).outputs == [word.upper() for word in words]

    with Batcher(Shout(), tokens=20, workers=3) as batcher, ThreadPoolExecutor(16) as pool:
        assert all(pool.map(call, range(300)))
    assert batcher.stats.answered == 300


def test_closing_answers_what_waits_and_refuses_the_rest() -> None:
    with busy(tokens=5) as (batcher, task):
        futures = [batcher.submit(task.encode(["aaaaa"])) for _ in range(4)]
        closing = threading.Thread(target=batcher.close)
        closing.start()
        while not batcher.closed:
            pass
        with pytest.raises(ClosedError):
            batcher.submit(task.encode(["b"]))
        task.go.set()
        closing.join()
        assert [future.result() for future in futures] == [["AAAAA"]] * 4


def test_closing_in_too_little_time_fails_what_waits() -> None:
    with busy() as (batcher, task):
        future = batcher.submit(task.encode(["a"]))
        assert not batcher.close(timeout=0.01)
        with pytest.raises(ClosedError):
            future.result(timeout=10)


def test_closing_twice_or_without_a_call() -> None:
    batcher: Words = Batcher(Shout())
    assert batcher.close()
    assert batcher.close()


@pytest.mark.parametrize("arguments", [{"tokens": 0}, {"tokens": 5, "queue": 4}, {"workers": 0}])
def test_wrong_numbers(arguments: dict[str, int]) -> None:
    with pytest.raises(CpuaccelError, match="must be >= "):
        Batcher(Shout(), **arguments)


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_process_is_told() -> None:
    def child() -> None:
        try:
            batcher.compute(["a"])
        except ForkError:
            told.set()

    context = multiprocessing.get_context("fork")
    told = context.Event()
    with Batcher(Shout()) as batcher:
        batcher.compute(["a"])
        process = context.Process(target=child)
        process.start()
        process.join()
    assert told.is_set()


def test_a_cancelled_future_raises() -> None:
    with busy() as (batcher, task):
        future = batcher.submit(task.encode(["a"]))
        future.cancel()
        with pytest.raises(CancelledError):
            future.result()
