"""Trainer of Transformers 4.30, whose arguments have ``no_cuda`` and no ``use_cpu``."""

from pathlib import Path

import pytest

from tests.required import requires


@requires("no accelerate")
def test_arguments_get_as_far_as_transformers_own_requirement(tmp_path: Path) -> None:
    from cpuaccel.integrations.trainer import CpuaccelArguments

    with pytest.raises(ImportError, match="requires `accelerate"):
        CpuaccelArguments(str(tmp_path), no_cuda=True, jit_mode_eval=True, report_to=[])
