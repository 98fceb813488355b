import os

import pytest
import torch

from cpuaccel.building.global_settings import restored_settings
from tests.conftest import Python


def test_what_changes_is_put_back_and_listed() -> None:
    threads, environment = torch.get_num_threads(), dict(os.environ)
    with restored_settings() as restored:
        torch.set_num_threads(threads + 1)
        torch.set_default_dtype(torch.float64)
        torch.set_grad_enabled(not torch.is_grad_enabled())
        torch.set_float32_matmul_precision("medium")
        os.environ["CPUACCEL_TEST"] = "1"
        os.environ.pop("PATH")
        assert restored == []
    assert restored == [
        "torch threads",
        "torch default dtype",
        "torch grad mode",
        "torch float32 matmul precision",
        "environment variables",
    ]
    assert torch.get_num_threads() == threads
    assert torch.get_default_dtype() is torch.float32
    assert torch.is_grad_enabled()
    assert torch.get_float32_matmul_precision() == "highest"
    assert dict(os.environ) == environment


def test_what_stays_is_not_listed() -> None:
    with restored_settings() as restored:
        torch.set_num_threads(torch.get_num_threads())
    assert restored == []


def test_an_error_passes_through_and_settings_are_put_back() -> None:
    def fail() -> None:
        torch.set_default_dtype(torch.float64)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), restored_settings():
        fail()
    assert torch.get_default_dtype() is torch.float32


def test_random_numbers_go_on_as_if_nothing_had_been_drawn() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    with restored_settings():
        torch.rand(100)
    assert torch.equal(torch.rand(3), expected)


def test_compiler_settings_are_put_back_where_they_are_imported() -> None:
    dynamo = pytest.importorskip("torch._dynamo.config")
    inductor = pytest.importorskip("torch._inductor.config")
    if not hasattr(dynamo, "get_config_copy"):
        pytest.skip("this torch has no copy of its compiler's settings to give")
    before = dynamo.suppress_errors, inductor.freezing, inductor.cpp.threads
    with restored_settings() as restored:
        dynamo.suppress_errors = not before[0]
        inductor.freezing = not before[1]
        inductor.cpp.threads = 3
    assert restored == ["Dynamo's settings", "Inductor's settings"]
    assert (dynamo.suppress_errors, inductor.freezing, inductor.cpp.threads) == before


def test_compiler_settings_are_not_imported_to_be_kept(python: Python) -> None:
    code = """
import sys
from cpuaccel.building.global_settings import restored_settings
def imported():
    return {"torch._dynamo.config", "torch._inductor.config"} & sys.modules.keys()
before = imported()
with restored_settings():
    pass
assert imported() == before
"""
    python(code)
