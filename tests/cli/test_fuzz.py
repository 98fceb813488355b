"""Any arguments end in output or an error message, never in a traceback."""

import os

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.cli.conftest import Run

EXAMPLES = int(os.environ.get("CPUACCEL_FUZZ_EXAMPLES", "60"))

OPTIONS = st.sampled_from(
    [
        *("--backends", "--pipeline", "--dtype", "--json", "--batch-size", "--seq-len", "--task"),
        *("--padding", "--rounds", "--threads", "--output", "--strict", "--markdown", "--", "-x"),
        *("jit", "jit,jit", "jitt", ",", "ipex,jit", "float32", "1,2", "-1", "0", "nan", "1e9"),
        *("--chat", "--sample", "--temperature", "--top-p", "--seed", "--max-new-tokens"),
        *("--budget", "--target", "--precisions", "--lock", "--html", "--memory-limit"),
        *("/nonexistent", "/dev/null", "/", "config:nothing", "text-classification"),
    ]
) | st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=8)

COMMANDS = st.sampled_from(
    [
        *("explain", "bench", "tune", "optimize", "inspect", "generate", "plugins", "doctor"),
        *("", "none"),
    ]
)


@settings(
    max_examples=EXAMPLES,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(COMMANDS, st.lists(OPTIONS, max_size=6))
def test_any_arguments(run: Run, command: str, arguments: list[str]) -> None:
    ran = run(*[command, *arguments][0 if command else 1 :])
    assert ran.code in (0, 1, 2), ran.err
    assert "Traceback" not in ran.err + ran.out
