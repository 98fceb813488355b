import io
import logging
import sys
import threading

import pytest

from cpuaccel_plugins.common.quiet import quiet_export


def test_other_threads_still_write_and_the_stream_is_restored_by_the_last(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    inside, leave = threading.Event(), threading.Event()

    def export() -> None:
        with quiet_export():
            sys.stderr.write("a graph\n")
            inside.set()
            leave.wait(60)

    with caplog.at_level(logging.DEBUG, logger="cpuaccel"):
        other = threading.Thread(target=export)
        other.start()
        assert inside.wait(60)
        sys.stderr.write("by another thread\n")
        with quiet_export():
            sys.stderr.write("another graph\n")
        leave.set()
        other.join(60)
    assert stream.getvalue() == "by another thread\n"
    assert sys.stderr is stream
    logged = [record.getMessage() for record in caplog.records]
    assert [m.splitlines()[1] for m in logged] == ["another graph", "a graph"]


def test_exporters_loggers_are_restored_after_an_error() -> None:
    exporter = logging.getLogger("torch.fx.experimental.symbolic_shapes")
    before = exporter.level
    levels = []

    def export() -> None:
        with quiet_export():
            levels.append(exporter.getEffectiveLevel())
            raise ValueError("no such operator")

    with pytest.raises(ValueError, match="no such operator"):
        export()
    assert levels == [logging.ERROR]
    assert exporter.level == before
