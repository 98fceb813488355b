import threading

import pytest

from cpuaccel.plugin.slow import warn_if_slow


def test_work_goes_on_where_no_thread_can_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    done = []
    with warn_if_slow("working"):
        done.append("work")
    assert done == ["work"]
