import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from cpuaccel.cli.main import main


@dataclass(frozen=True)
class Ran:
    """Exit code and output of one command."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Ran]


@pytest.fixture
def run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Ran]]:
    """Run a command in this process."""
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments: object) -> Ran:
        capsys.readouterr()
        with pytest.raises(SystemExit) as exited:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        code = exited.value.code
        return Ran(code if isinstance(code, int) else 0, captured.out, captured.err)

    logger = logging.getLogger("cpuaccel")
    handlers = list(logger.handlers)
    yield call
    logger.handlers[:] = handlers


@pytest.fixture
def pipeline_file(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A TOML file with the pipeline jit, without freezing."""
    path = tmp_path_factory.mktemp("pipelines") / "fast.toml"
    path.write_text('version = 1\n[[steps]]\nbackend = "jit"\noptions = { freeze = false }\n')
    return path
