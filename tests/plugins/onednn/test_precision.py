"""The setting that sends float32 products to oneDNN is restored."""

import threading
from collections.abc import Iterator

import pytest
import torch

from cpuaccel_plugins.onednn.attention import precision
from cpuaccel_plugins.onednn.attention.precision import PRECISION, onednn_matmul
from tests.required import BF16, unmet


@pytest.fixture
def _exact(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As on a host where oneDNN computes float32 products in float32."""
    monkeypatch.setattr(precision, "is_exact", lambda: True)
    onednn_matmul.cache_clear()
    yield
    onednn_matmul.cache_clear()


exact = pytest.mark.usefixtures("_exact")


def test_products_are_exact_without_instructions_for_less() -> None:
    assert precision.is_exact() or not unmet((BF16,))


def current() -> str:
    return torch.get_float32_matmul_precision()


@exact
def test_it_is_set_inside_and_restored() -> None:
    before = current()
    with onednn_matmul():
        assert current() == PRECISION
        with onednn_matmul():
            assert current() == PRECISION
        assert current() == PRECISION
    assert current() == before


@exact
def test_it_is_restored_after_an_error() -> None:
    before = current()
    with pytest.raises(ZeroDivisionError), onednn_matmul():
        _ = 1 / 0
    assert current() == before


@exact
def test_what_the_caller_sets_inside_stays() -> None:
    before = current()
    try:
        with onednn_matmul():
            torch.set_float32_matmul_precision("high")
        assert current() == "high"
    finally:
        torch.set_float32_matmul_precision(before)


@exact
def test_the_last_of_several_threads_restores_it() -> None:
    before = current()
    entered, leave = threading.Barrier(4), threading.Event()

    def work() -> None:
        with onednn_matmul():
            entered.wait()
            leave.wait()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    entered.wait()
    assert current() == PRECISION
    leave.set()
    for thread in threads:
        thread.join()
    assert current() == before


def test_nothing_is_set_on_hosts_that_would_not_be_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "is_exact", lambda: False)
    before = current()
    with onednn_matmul.__wrapped__():
        assert current() == before
    assert current() == before
