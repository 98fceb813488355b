import dataclasses
import math
from typing import ClassVar

import pytest
import torch

import cpuaccel
from cpuaccel import Applied, Backend, Context, Form, Options
from cpuaccel.building.settings import BuildSettings
from cpuaccel.model.signature import Signature
from cpuaccel.plugin.manager import PluginHost
from cpuaccel.testing import fake_host
from cpuaccel.tuning.candidate import Candidate
from cpuaccel.tuning.request import Request
from cpuaccel.tuning.space import Space
from tests.conftest import Plugin
from tests.fake_backends import Refusing, Unavailable, batch, encoder

HOST = dataclasses.replace(fake_host(), isa=frozenset({"amx_bf16"}), bf16_speed=4.0)


def backend(name: str, takes: Form, gives: Form, **more: object) -> type[Backend[Options]]:
    def apply(self: object, model: torch.nn.Module, context: Context) -> Applied:
        raise AssertionError("nothing is built in this test")

    members = {"name": name, "summary": "", "takes": takes, "gives": gives, "apply": apply, **more}
    return type(name.title(), (Backend,), members)


PACK = backend("pack", Form.MODULE, Form.MODULE)
FOLD = backend("fold", Form.MODULE, Form.MODULE, before=frozenset({"pack"}))
TRACE = backend("trace", Form.MODULE, Form.SCRIPT)
FUSE = backend("fuse", Form.SCRIPT, Form.SCRIPT, excludes={"fold": "they undo each other"})
ENGINE = backend("engine", Form.MODULE, Form.COMPILED)


def space(
    *backends: type[Backend[Options]],
    precisions: tuple[str, ...] = ("float32",),
    widest_tolerance: float = 1e-4,
) -> Space:
    plugins = PluginHost([])
    plugins.register(Plugin(cpuaccel_backends=lambda: list(backends)), "the test's")
    model = encoder()
    return Space(
        plugins, HOST, model, Signature.from_inputs(model, batch()), precisions, widest_tolerance
    )


def names(space: Space) -> list[str]:
    return [candidate.name for candidate in space.waiting]


def test_composes_backends_by_their_forms() -> None:
    assert set(names(space(PACK, FOLD, TRACE, FUSE, ENGINE))) == {
        *("pack", "fold", "trace", "engine"),
        *("fold,pack", "pack,trace", "fold,trace", "trace,fuse", "pack,engine", "fold,engine"),
        *("fold,pack,trace", "fold,pack,engine", "pack,trace,fuse"),
    }


def test_unavailable_backends_are_not_tried() -> None:
    class Needing(Options):
        calibration: str

    needing = backend("needing", Form.MODULE, Form.COMPILED, Options=Needing)
    found = space(Unavailable, Refusing, needing, TRACE)
    assert names(found) == ["trace"]
    assert {one.name: one.reason for one in found.not_tried} == {
        "needing": "option calibration is required: use the backend in a pipeline",
        "refusing": "the model has no layers of the kind. Use another model",
        "unavailable": (
            'an-engine-of-tests is not installed. Run: pip install "an-engine-of-tests>=2"'
        ),
    }


def test_leaves_out_backends_with_a_wide_tolerance() -> None:
    coarse = backend("coarse", Form.MODULE, Form.COMPILED, tolerance=0.15)
    found = space(coarse, PACK)
    assert names(found) == ["pack"]
    (left,) = found.not_tried
    assert (left.name, left.reason) == (
        "coarse",
        "coarse may be off by up to 15%, the default tolerance is 0.01%. To include it, pass a "
        "wider tolerance, or a metric and max_drop",
    )
    assert "pack,coarse" in names(space(coarse, PACK, widest_tolerance=0.15))


@pytest.mark.parametrize(
    ("arguments", "widest"),
    [
        ({}, 1e-4),
        ({"precisions": ["float32", "bfloat16"]}, 5e-2),
        ({"tolerance": 1e-4}, 1e-4),
        ({"tolerance": 1e-5}, 1e-4),
        ({"tolerance": 1e-3}, math.inf),
        ({"tolerance": 1e-3, "precisions": ["bfloat16"]}, 5e-2),
        ({"metric": lambda outputs: 1.0}, math.inf),
    ],
)
def test_widest_backend_tolerance(arguments: dict[str, object], widest: float) -> None:
    tolerance = arguments.pop("tolerance", None)
    request = Request.from_arguments(encoder(), arguments, BuildSettings(tolerance=tolerance))
    assert request.widest_backend_tolerance == widest


def test_tries_parts_before_wholes() -> None:
    assert names(space(PACK, TRACE, ENGINE)) == [
        *("pack", "engine", "trace", "pack,engine", "pack,trace"),
    ]


def test_measured_speedups_decide_the_order() -> None:
    found = space(PACK, TRACE, ENGINE)
    for name, speedup in {"pack": 1.1, "engine": 1.1, "trace": 3.0}.items():
        candidate = found.take()
        assert candidate is not None
        assert candidate.name == name
        found.record(candidate, speedup)
    assert names(found) == ["pack,trace", "pack,engine"]
    assert found.expected_speedup(Candidate(("pack", "trace"), "float32")) == pytest.approx(3.3)


def test_tries_the_cast_alone_first() -> None:
    found = space(ENGINE, precisions=("float32", "bfloat16"))
    cast = found.take()
    assert cast == Candidate((), "bfloat16")
    found.record(cast, 4.0)
    assert found.waiting[0] == Candidate(("engine",), "bfloat16")
    found.take()
    found.record(Candidate(("engine",), "bfloat16"), 12.0)
    assert found.expected_speedup(Candidate(("engine",), "float32")) == pytest.approx(3.0)


def search(space: Space, refused: str, reason: str, *, all_precisions: bool = False) -> list[str]:
    """Take all candidates, and exclude one of them."""
    taken = []
    while candidate := space.take():
        taken.append(str(candidate))
        if str(candidate) == refused:
            space.exclude(candidate, reason, all_precisions=all_precisions)
    return taken


def test_does_not_try_pipelines_with_a_crashed_step() -> None:
    found = space(PACK, TRACE, precisions=("float32", "bfloat16"))
    taken = search(found, "pack in bfloat16", "it crashed", all_precisions=True)
    reason = "pack failed: it crashed"
    assert {one.name: one.reason for one in found.not_tried} == dict.fromkeys(
        ("pack in float32", "pack,trace in float32", "pack,trace in bfloat16"), reason
    )
    assert set(taken) == {
        *("eager in bfloat16", "trace in bfloat16", "trace in float32", "pack in bfloat16")
    }


def test_tries_a_refused_candidate_in_another_precision() -> None:
    found = space(PACK, TRACE, precisions=("float32", "bfloat16"))
    taken = search(found, "pack in bfloat16", "it changes the outputs")
    assert {one.name for one in found.not_tried} == {"pack,trace in bfloat16"}
    assert "pack,trace in float32" in taken


def test_a_refused_cast_leaves_backends_that_cast_themselves() -> None:
    casting: ClassVar = backend("casting", Form.MODULE, Form.COMPILED, casts=True)
    found = space(PACK, casting, precisions=("float32", "bfloat16"))
    taken = search(found, "eager in bfloat16", "it changes the outputs")
    assert "casting in bfloat16" in taken
    assert {one.name: one.reason for one in found.not_tried} == dict.fromkeys(
        ("pack in bfloat16", "pack,casting in bfloat16"),
        "the cast to bfloat16 failed: it changes the outputs",
    )
    assert "pack in float32" in taken


def test_does_not_try_extensions_of_a_refused_pipeline() -> None:
    found = space(PACK, TRACE, FUSE)
    taken = search(found, "pack,trace in float32", "it is wrong")
    assert "pack,trace,fuse in float32" not in taken
    assert [one.name for one in found.not_tried] == ["pack,trace,fuse in float32"]
    assert "trace,fuse in float32" in taken


def test_includes_third_party_backends() -> None:
    mine: ClassVar = backend("mine", Form.MODULE, Form.COMPILED)
    assert "pack,mine" in names(space(PACK, mine))
    assert cpuaccel.Pipeline.from_steps(["pack", "mine"]).steps == (
        Candidate(("pack", "mine"), "float32").pipeline.steps
    )
