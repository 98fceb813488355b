import json

import pytest
import torch

import cpuaccel
from cpuaccel import Pipeline, Step
from cpuaccel.planning.plan import make_plan
from cpuaccel.testing import fake_host
from tests.conftest import Offer
from tests.fake_backends import Faithful, Refusing, Unavailable, batch, encoder


@pytest.fixture(autouse=True)
def _backends(offer: Offer) -> None:
    offer(Faithful, Refusing, Unavailable)


def test_every_step_has_a_verdict() -> None:
    plan = cpuaccel.explain(encoder(), ["faithful", "unavailable"])
    assert [bool(planned.verdict) for planned in plan.steps] == [True, False]
    assert str(plan).splitlines() == [
        "pipeline  faithful,unavailable, dtype the model's own",
        "step      faithful (module -> module): yes",
        "step      unavailable (module -> module): no. an-engine-of-tests is not installed. "
        'Run: pip install "an-engine-of-tests>=2".',
    ]


def test_the_model_is_asked_about_where_inputs_are_known() -> None:
    assert cpuaccel.explain(encoder(), ["refusing"]).steps[0].verdict
    plan = cpuaccel.explain(encoder(), ["refusing"], example_inputs=batch())
    assert plan.steps[0].verdict.reason == "the model has no layers of the kind"


def test_inputs_that_forward_does_not_take_are_told_at_once() -> None:
    with pytest.raises(cpuaccel.SignatureError, match="'ids' is not a parameter of forward"):
        cpuaccel.explain(encoder(), ["faithful"], example_inputs={"ids": torch.ones(1)})


def test_a_plan_for_a_machine_that_is_not_at_hand() -> None:
    pipeline = Pipeline.from_steps(["jit", Step("unavailable", optional=True)], torch.bfloat16)
    pipeline = Pipeline(tuple(reversed(pipeline.steps)), pipeline.dtype)
    slow = fake_host(
        isa=frozenset({"avx2"}),
        torch_isa="AVX2",
        bf16_speed=0.1,
        packages={"torch": "1.12.1", "an_engine_of.tests": "1.0"},
    )
    plan = make_plan(encoder(), pipeline, on=slow)
    assert plan.steps[1].verdict.reason == "torch 1.12.1 is installed, >=1.13 is needed"
    assert not plan.precision
    assert plan.pipeline.dtype is torch.bfloat16
    assert plan.dtype is None
    assert str(plan).splitlines()[1].startswith("dtype     no. bfloat16 matrix products run at")
    with pytest.raises(cpuaccel.StepError) as caught:
        plan.warn_or_raise(strict=True)
    assert "jit: torch 1.12.1 is installed" in str(caught.value)
    assert "unavailable:" not in str(caught.value)


def test_a_plan_is_data_that_json_can_hold() -> None:
    plan = cpuaccel.explain(encoder(), ["faithful", "unavailable"], dtype="float32")
    data = json.loads(json.dumps(plan.to_dict()))
    assert data["dtype"] == "float32"
    assert data["steps"][0] == {
        "backend": "faithful",
        "optional": False,
        "takes": "module",
        "gives": "module",
        "ok": True,
        "reason": "",
        "remedy": "",
    }
    assert data["steps"][1]["remedy"] == 'Run: pip install "an-engine-of-tests>=2"'


def test_explaining_does_no_work() -> None:
    class Untouchable(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise AssertionError("it was called")

    assert cpuaccel.explain(Untouchable(), ["jit"], example_inputs=torch.ones(1)).steps[0].verdict


def test_the_callers_dtype_goes_before_the_files() -> None:
    pipeline = Pipeline.from_steps(["faithful"], torch.bfloat16)
    plan = cpuaccel.explain(encoder(), pipeline=pipeline, dtype="float32")
    assert plan.dtype is torch.float32
    assert cpuaccel.explain(encoder(), pipeline=pipeline).pipeline.dtype is torch.bfloat16
