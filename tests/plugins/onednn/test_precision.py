"""The setting that sends float32 products to oneDNN, and that it is put back."""

import threading

import pytest
import torch

from cpuaccel_plugins.onednn.attention import precision
from cpuaccel_plugins.onednn.attention.precision import THROUGH_ONEDNN, fast_products

inside_matters = pytest.mark.skipif(
    not precision.stays_exact(), reason="oneDNN would not compute exactly here"
)


def current() -> str:
    return torch.get_float32_matmul_precision()


@inside_matters
def test_it_holds_inside_and_is_put_back() -> None:
    before = current()
    with fast_products():
        assert current() == THROUGH_ONEDNN
        with fast_products():
            assert current() == THROUGH_ONEDNN
        assert current() == THROUGH_ONEDNN
    assert current() == before


def test_it_is_put_back_after_an_error() -> None:
    before = current()
    with pytest.raises(ZeroDivisionError), fast_products():
        _ = 1 / 0
    assert current() == before


@inside_matters
def test_what_the_caller_sets_meanwhile_stays() -> None:
    before = current()
    try:
        with fast_products():
            torch.set_float32_matmul_precision("high")
        assert current() == "high"
    finally:
        torch.set_float32_matmul_precision(before)


@inside_matters
def test_the_last_of_several_threads_puts_it_back() -> None:
    before = current()
    entered, leave = threading.Barrier(4), threading.Event()

    def work() -> None:
        with fast_products():
            entered.wait()
            leave.wait()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    entered.wait()
    assert current() == THROUGH_ONEDNN
    leave.set()
    for thread in threads:
        thread.join()
    assert current() == before


def test_where_it_would_not_be_exact_nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "stays_exact", lambda: False)
    before = current()
    with fast_products.__wrapped__():
        assert current() == before
    assert current() == before
