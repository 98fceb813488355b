import importlib

import pytest

from common.exits import run


def test_a_missing_package_is_named_with_what_installs_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(lambda: importlib.import_module("no_such_package_of_tests.metrics"))
    assert ended.value.code == 1
    assert capsys.readouterr().err == (
        'error: no_such_package_of_tests is not installed. Run: pip install ".[examples]"\n'
    )
