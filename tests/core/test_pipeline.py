from collections.abc import Mapping
from typing import ClassVar

import pytest
import torch
from pydantic import Field

import cpuaccel
from cpuaccel import Applied, Context, Form, Pipeline, PipelineError, Step
from tests.conftest import Offer
from tests.fake_backends import Faithful, Fake, Opaque, ScriptTaking, encoder


class Prepares(Fake):
    name = "prepares"
    before = frozenset({"faithful"})


class Excluding(Fake):
    name = "excluding"
    excludes: ClassVar[Mapping[str, str]] = {"faithful": "they replace the same layers"}


class Choosy(Fake):
    name = "choosy"

    class Options(cpuaccel.Options):
        layers: int = Field(default=2, ge=1)
        fuse: bool = True

    def apply(self, model: torch.nn.Module, context: Context) -> Applied:
        raise NotImplementedError


@pytest.fixture(autouse=True)
def _backends(offer: Offer) -> None:
    offer(Faithful, Opaque, ScriptTaking, Prepares, Excluding, Choosy)


def problems(*steps: str | Step) -> tuple[str, ...]:
    with pytest.raises(PipelineError) as caught:
        cpuaccel.explain(encoder(), steps)
    return caught.value.problems


def test_an_unknown_backend_is_named_with_the_closest_name() -> None:
    (problem,) = problems("faithfull")
    assert problem.startswith(
        "step 1 (faithfull): unknown backend 'faithfull'. Did you mean 'faithful'? Available: "
    )
    assert "choosy, excluding, faithful" in problem


def test_no_name_is_proposed_if_none_is_close() -> None:
    (problem,) = problems("zzz")
    assert "unknown backend 'zzz'. Available: " in problem


@pytest.mark.parametrize("steps", [("excluding", "faithful"), ("faithful", "excluding")])
def test_two_that_exclude_each_other_are_refused_in_any_order(steps: tuple[str, str]) -> None:
    assert problems(*steps) == (
        "excluding can't be used together with faithful: they replace the same layers. Remove "
        "one of them",
    )


def test_an_unknown_option_is_named_with_the_closest_name() -> None:
    assert problems(Step("choosy", layer=3)) == (
        "step 1 (choosy): unknown name 'layer'. Did you mean 'layers'? Available: layers, fuse",
    )


def test_an_option_of_a_backend_without_options() -> None:
    assert problems(Step("faithful", fuse=True)) == (
        "step 1 (faithful): unknown name 'fuse'. Available: none",
    )


def test_a_bad_value_is_named_with_its_option() -> None:
    assert problems(Step("choosy", layers=0, fuse="perhaps")) == (
        "step 1 (choosy): layers: input should be greater than or equal to 1, but got 0",
        "step 1 (choosy): fuse: input should be a valid boolean, unable to interpret input, "
        "but got 'perhaps'",
    )


def test_an_impossible_order_says_which_to_put_first() -> None:
    assert problems("opaque", "faithful") == (
        "faithful takes a module, but opaque gives a compiled model: put faithful before opaque",
    )


def test_ipex_after_jit_is_refused(offer: Offer) -> None:
    class Ipex(Fake):
        name = "fake_ipex"

    class Jit(Fake):
        name = "fake_jit"
        gives = Form.SCRIPT

    offer(Ipex, Jit)
    assert problems("fake_jit", "fake_ipex") == (
        "fake_ipex takes a module, but fake_jit gives a script: put fake_ipex before fake_jit",
    )
    assert cpuaccel.explain(encoder(), ["fake_ipex", "fake_jit"]).steps


@pytest.mark.parametrize("steps", [("opaque", "rival"), ("rival", "opaque")])
def test_two_that_fit_in_no_order_are_not_advised_to_swap(
    offer: Offer, steps: tuple[str, str]
) -> None:
    class Rival(Opaque):
        name = "rival"

    offer(Rival)
    first, second = steps
    assert problems(*steps) == (
        f"{second} takes a module, but {first} gives a compiled model. They can't be combined in "
        f"either order: remove {second} or {first}",
    )


def test_the_other_order_is_not_advised_where_before_forbids_it(offer: Offer) -> None:
    class First(Opaque):
        name = "first"
        before = frozenset({"faithful"})

    offer(First)
    assert problems("first", "faithful") == (
        "faithful takes a module, but first gives a compiled model. They can't be combined in "
        "either order: remove faithful or first",
    )


def test_a_first_step_that_does_not_take_a_module() -> None:
    assert problems("script_taking") == (
        "script_taking takes a script, but a pipeline starts with a module",
    )


def test_before_determines_the_order() -> None:
    assert problems("faithful", "prepares") == ("prepares must come before faithful: swap them",)
    assert cpuaccel.explain(encoder(), ["prepares", "faithful"]).steps


def test_a_step_that_appears_twice() -> None:
    assert problems("faithful", "faithful") == ("faithful appears twice: remove one",)


def test_all_mistakes_are_in_one_error() -> None:
    with pytest.raises(PipelineError) as caught:
        cpuaccel.explain(
            encoder(), ["opaque", Step("choosy", fuze=1), "opaque", "halve", "script_taking"]
        )
    message = str(caught.value)
    assert message.startswith(
        "pipeline opaque,choosy,opaque,halve,script_taking from backends: 5 mistakes\n"
    )
    for mistake in (
        "step 2 (choosy): unknown name 'fuze'. Did you mean 'fuse'?",
        "step 4 (halve): unknown backend",
        "choosy takes a module, but opaque gives a compiled model",
        "opaque appears twice",
        "script_taking takes a script, but opaque gives a compiled model",
    ):
        assert f"\n  - {mistake}" in message


def test_mistakes_are_found_before_any_work() -> None:
    class Untouchable(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise AssertionError("it was called")

    with pytest.raises(PipelineError):
        cpuaccel.optimize(Untouchable(), ["faithful", "faithful"], example_inputs=torch.ones(1))


@pytest.mark.parametrize("backends", ["jit,onednn", ["jit,onednn"]])
def test_names_with_commas_get_the_list_as_the_remedy(backends: object) -> None:
    with pytest.raises(PipelineError, match=r"Pass a list: \['jit', 'onednn'\]"):
        cpuaccel.explain(encoder(), backends)  # type: ignore[arg-type]


def test_backends_and_a_pipeline_exclude_each_other() -> None:
    with pytest.raises(PipelineError, match="pass one of backends and pipeline, got both"):
        cpuaccel.explain(encoder(), ["faithful"], pipeline=Pipeline(()))


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_a_script_as_the_model_is_refused() -> None:
    script = torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2))  # type: ignore[no-untyped-call]
    with pytest.raises(PipelineError, match="pass the eager module that the script was made from"):
        cpuaccel.explain(script, ["faithful"])


def test_another_object_as_the_model_is_refused() -> None:
    with pytest.raises(cpuaccel.CpuaccelError, match="got a dict"):
        cpuaccel.explain({}, ["faithful"])  # type: ignore[arg-type]


@pytest.mark.parametrize("tolerance", [-1.0, float("nan")])
def test_an_invalid_tolerance(tolerance: float) -> None:
    with pytest.raises(cpuaccel.CpuaccelError, match="tolerance must be >= 0, got"):
        cpuaccel.optimize(encoder(), ["faithful"], tolerance=tolerance)


def test_an_invalid_dtype() -> None:
    with pytest.raises(cpuaccel.CpuaccelError, match="dtype must be float32 or bfloat16"):
        cpuaccel.explain(encoder(), ["faithful"], dtype="float16")


def test_one_name_is_a_pipeline_of_one_step() -> None:
    assert Pipeline.from_steps("faithful") == Pipeline.from_steps(["faithful"])


def test_a_step_from_an_options_object_equals_the_step_by_name() -> None:
    step = Step(Choosy.Options(layers=3), optional=True)
    assert step == Step("choosy", optional=True, layers=3)
    assert Step(Choosy.Options()) == Step("choosy")
    (planned,) = cpuaccel.explain(encoder(), [step]).steps
    assert planned.backend.options == Choosy.Options(layers=3)


def test_an_option_may_be_named_optional() -> None:
    class OptionsOfCount(cpuaccel.Options):
        optional: int = 0

    class Counting(Fake):
        name = "counting"
        Options = OptionsOfCount

    step = Step(OptionsOfCount(optional=3))
    assert (step.backend, step.options, step.optional) == ("counting", {"optional": 3}, False)
    assert Step(OptionsOfCount(optional=3), optional=True).optional


def test_options_that_no_backend_declares() -> None:
    class Unused(cpuaccel.Options):
        pass

    with pytest.raises(PipelineError, match="Unused is declared by no backend"):
        Step(Unused())


def test_options_that_two_backends_declare() -> None:
    class Shared(cpuaccel.Options):
        pass

    class First(Fake):
        name = "first"
        Options = Shared

    class Derived(First):  # inherits Options, does not declare them
        name = "derived"

    assert Step(Shared()).backend == "first"

    class Second(Fake):
        name = "second"
        Options = Shared

    with pytest.raises(PipelineError, match="Shared is declared by first and second"):
        Step(Shared())


def test_options_in_both_forms() -> None:
    with pytest.raises(PipelineError, match=r"Options and by keyword \(fuse\)"):
        Step(Choosy.Options(layers=3), fuse=True)


def test_repr_of_a_step() -> None:
    step = Step("choosy", optional=True, layers=3)
    assert repr(step) == "Step('choosy', optional=True, layers=3)"
    assert step == Step("choosy", optional=True, layers=3)
    assert step != Step("choosy", layers=3)
    assert str(Pipeline.from_steps([step, "faithful"])) == "choosy,faithful"
