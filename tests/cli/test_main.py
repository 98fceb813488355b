import subprocess
import sys

import pytest

import cpuaccel
from tests.cli.conftest import Run
from tests.conftest import Python

HEAVY = "{'torch', 'transformers', 'cpuaccel.api'}"


def test_version(run: Run) -> None:
    assert run("--version").out == f"cpuaccel {cpuaccel.__version__}\n"


def test_it_runs_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cpuaccel", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"cpuaccel {cpuaccel.__version__}\n"


@pytest.mark.parametrize(
    "command", ["doctor", "plugins", "explain", "bench", "tune", "optimize", "inspect", "generate"]
)
def test_every_command_has_help_and_json(run: Run, command: str) -> None:
    ran = run(command, "--help")
    assert ran.code == 0
    assert "--json" in ran.out


def test_help_does_not_import_torch(python: Python) -> None:
    code = (
        "import sys\n"
        "from cpuaccel.cli.main import main\n"
        "try:\n    main(['bench', '--help'])\n"
        f"except SystemExit:\n    assert not {HEAVY} & set(sys.modules)"
    )
    assert "bench config:minilm-l6" in python(code).stdout


def test_an_unknown_command_is_a_usage_error(run: Run) -> None:
    ran = run("benhc")
    assert ran.code == 2
    assert "benhc" in ran.err


def test_an_invalid_pipeline_is_a_usage_error_without_traceback(run: Run) -> None:
    ran = run("explain", "config:bert-tiny", "--backends", "jti,jit")
    assert ran.code == 2
    assert ran.out == ""
    assert "unknown backend 'jti'. Did you mean 'jit'?" in ran.err
    assert "Traceback" not in ran.err
