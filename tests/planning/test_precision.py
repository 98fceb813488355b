import pytest
import torch

import cpuaccel
from cpuaccel.planning.plan import make_plan
from cpuaccel.testing import fake_host

AMX = fake_host()
WITHOUT_AMX = fake_host(isa=frozenset({"avx2", "avx512f", "avx512_bf16"}))


def precision(model: torch.nn.Module, host: cpuaccel.Host) -> cpuaccel.Verdict:
    pipeline = cpuaccel.Pipeline.from_steps(["jit"], torch.bfloat16)
    plan = make_plan(model, pipeline, on=host)
    assert (plan.dtype is torch.bfloat16) is bool(plan.precision)
    return plan.precision


def test_a_strided_conv3d_is_not_cast_to_bfloat16_with_amx() -> None:
    model = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Conv3d(2, 4, 3, stride=(1, 2, 2)))
    verdict = precision(model, AMX)
    assert verdict.reason == (
        "1 is a Conv3d with stride (1, 2, 2), which oneDNN computes wrongly in bfloat16 on AMX for "
        "some sizes (pytorch#169688)"
    )
    assert verdict.remedy == "Use dtype=float32 for this model"
    assert precision(model, WITHOUT_AMX)


@pytest.mark.parametrize(
    "layer",
    [torch.nn.Conv3d(2, 4, 3), torch.nn.Conv2d(2, 4, 3, stride=2), torch.nn.Linear(2, 4)],
    ids=["without stride", "of two dimensions", "linear"],
)
def test_other_layers_are_cast(layer: torch.nn.Module) -> None:
    assert precision(layer, AMX)


def test_a_host_without_fast_bfloat16_is_refused_first() -> None:
    slow = fake_host(isa=frozenset({"avx2"}), torch_isa="AVX2", bf16_speed=0.1)
    assert "times float32's speed" in precision(torch.nn.Linear(2, 4), slow).reason
