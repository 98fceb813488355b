"""The setting that sends float32 products to oneDNN, and that it is put back."""

import threading

import pytest
import torch

from cpuaccel_plugins.onednn.attention import precision
from cpuaccel_plugins.onednn.attention.precision import PRECISION, onednn_matmul

inside_matters = pytest.mark.skipif(
    not precision.is_exact(), reason="oneDNN would not compute exactly here"
)


def current() -> str:
    return torch.get_float32_matmul_precision()


@inside_matters
def test_it_holds_inside_and_is_put_back() -> None:
    before = current()
    with onednn_matmul():
        assert current() == PRECISION
        with onednn_matmul():
            assert current() == PRECISION
        assert current() == PRECISION
    assert current() == before


def test_it_is_put_back_after_an_error() -> None:
    before = current()
    with pytest.raises(ZeroDivisionError), onednn_matmul():
        _ = 1 / 0
    assert current() == before


@inside_matters
def test_what_the_caller_sets_meanwhile_stays() -> None:
    before = current()
    try:
        with onednn_matmul():
            torch.set_float32_matmul_precision("high")
        assert current() == "high"
    finally:
        torch.set_float32_matmul_precision(before)


@inside_matters
def test_the_last_of_several_threads_puts_it_back() -> None:
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


def test_where_it_would_not_be_exact_nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "is_exact", lambda: False)
    before = current()
    with onednn_matmul.__wrapped__():
        assert current() == before
    assert current() == before
