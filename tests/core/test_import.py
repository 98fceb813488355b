import pytest

import cpuaccel
from tests.conftest import Python

HEAVY = ("torch", "pydantic", "pluggy", "cpuaccel_plugins", "numpy", "transformers", "typer")
ENGINES = ("intel_extension_for_pytorch", "optimum", "transformers", "onnxruntime", "openvino")


def test_importing_is_inert(python: Python) -> None:
    done = python(
        "import sys, cpuaccel\n"
        f"print([name for name in {HEAVY} if name in sys.modules])\n"
        "dir(cpuaccel)\n"
        "print('torch' in sys.modules)\n"
    )
    assert done.stdout == "[]\nFalse\n"
    assert done.stderr == ""


def test_listing_backends_imports_no_engine(python: Python) -> None:
    done = python(
        "import sys, cpuaccel\n"
        "assert 'jit' in cpuaccel.backends()\n"
        f"print([name for name in {ENGINES} if name in sys.modules])\n"
    )
    assert done.stdout == "[]\n"


def test_every_exported_name_exists() -> None:
    for name in cpuaccel.__all__:
        assert getattr(cpuaccel, name) is not None
    assert set(cpuaccel.__all__) <= set(dir(cpuaccel))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'accelerate'"):
        cpuaccel.accelerate  # noqa: B018
