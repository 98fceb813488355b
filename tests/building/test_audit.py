"""With the analysis of a model's code switched off, audits find what it would have refused."""

import copy
import logging
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch

import cpuaccel
from cpuaccel.building import builder
from cpuaccel.building.domain import Domain
from cpuaccel.building.reference import Reference
from cpuaccel.checks import dependence
from cpuaccel.checks.axis_groups import AxisGroups
from cpuaccel.checks.probes import Probe
from cpuaccel.checks.value_reads import ValueReads
from cpuaccel.model.output import constants, leaves
from cpuaccel.model.signature import Signature
from tests.building.models import Image
from tests.conftest import Offer
from tests.core.test_changed_state import CHANGES, Adapters
from tests.fake_backends import Fake
from tests.required import ONNXRUNTIME, OPENVINO, requires

ALWAYS = 0.99
"""The share of the time with which every call is audited: building takes longer than all calls."""

TRACERS = ("jit", "openvino")
ENGINES = (*TRACERS, "onnxruntime")
FACTS = {"jit": (), "openvino": OPENVINO, "onnxruntime": ONNXRUNTIME}


@pytest.fixture(autouse=True)
def _without_analysis(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let variants serve all sizes, values and states, as if nothing were known of the code."""

    def no_reads(original: object, probe: Probe) -> ValueReads:
        reads = ValueReads({})
        reads.output = probe.output
        return reads

    def all_sizes(signature: Signature, groups: AxisGroups, **found: object) -> Domain:
        return Domain(signature, groups, None)

    monkeypatch.setattr(dependence, "_find_guards", lambda *_: None)
    monkeypatch.setattr(dependence, "_find_reads", no_reads)
    monkeypatch.setattr(builder, "find_domain", all_sizes)
    monkeypatch.setattr(Reference, "changes", lambda _: "")


class Graph(torch.nn.Module):
    """Loops over the edges of a graph."""

    def forward(self, nodes: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
        messages = torch.zeros_like(nodes)
        for i in range(edges.shape[1]):
            messages = messages.index_add(0, edges[1, i : i + 1], nodes[edges[0, i : i + 1]])
        return nodes + messages


class Branch(torch.nn.Module):
    """Takes another path for some values."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2 if bool((x > 0).any()) else x - 1


class Lengths(torch.nn.Module):
    """Makes a mask from the largest length."""

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        longest = int(lengths.max())
        mask = torch.arange(x.shape[1]) < longest
        return (x * mask[:, None]).sum(1) / longest


class Writing(torch.nn.Module):
    """Writes to its input."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mul_(2).sum(1)


class WritingMore(Fake):
    """Writes to inputs that begin with a large number what the original does not."""

    name = "writing_more"

    def change(self, model: Callable[..., object], inputs: dict[str, object]) -> object:
        x = inputs["x"]
        assert isinstance(x, torch.Tensor)
        large = bool(x[0, 0] > 100)
        output = model(x)
        if large:
            x.add_(1)
        return output


class Returning(torch.nn.Module):
    """Returns a tensor, and what a function makes of the input."""

    def __init__(self, function: Callable[[torch.Tensor], object]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> object:
        return {"x": x * 2, "value": self.function(x)}


@dataclass
class Settings:
    """A configuration."""

    scale: float = 1.0


class Configured(torch.nn.Module):
    """Reads its configuration in each call, and is in training mode when it is optimized."""

    def __init__(self) -> None:
        super().__init__()
        self.settings = Settings()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.settings.scale


def nothing(model: torch.nn.Module) -> None:
    """Change nothing."""


@dataclass(frozen=True)
class Case:
    """A model that is optimized with an example, changed, and called with other inputs."""

    model: Callable[[], torch.nn.Module]
    example: tuple[torch.Tensor, ...]
    call: tuple[torch.Tensor, ...]
    change: Callable[..., object] = nothing
    audit: bool | float = ALWAYS
    backends: tuple[str, ...] = TRACERS


def adapters() -> Adapters:
    return Adapters().eval()


def image(height: int, width: int) -> tuple[torch.Tensor]:
    return (torch.rand(2, 3, height, width),)


POSITIVE = torch.arange(1.0, 7.0).reshape(2, 3)
MIXED = torch.tensor([[1.0, -2.0, 3.0], [-4.0, 5.0, -6.0]])
SOME = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))

SIZES = {
    "another size class": Case(Image, image(16, 16), image(40, 40), audit=True),
    "a size of the same class": Case(Image, image(16, 16), image(24, 16)),
    "more edges": Case(
        Graph,
        (torch.randn(4, 8), torch.tensor([[0, 1, 2], [1, 2, 3]])),
        (torch.randn(4, 8), torch.tensor([[0, 1, 2, 3, 0], [1, 2, 3, 0, 2]])),
        audit=True,
    ),
}
VALUES = {
    "branch": Case(Branch, (POSITIVE,), (-POSITIVE,)),
    "length": Case(
        Lengths,
        (torch.randn(2, 6, 3), torch.tensor([6, 2])),
        (torch.randn(2, 6, 3), torch.tensor([4, 1])),
        backends=("jit",),
    ),
}
OUTPUTS = {
    "count": Case(lambda: Returning(lambda x: int((x > 0).sum())), (POSITIVE,), (MIXED,)),
    "flag": Case(lambda: Returning(lambda x: bool((x < 0).any())), (POSITIVE,), (MIXED,)),
    "mean": Case(lambda: Returning(lambda x: [float(x.mean())]), (POSITIVE,), (MIXED,)),
    "tags": Case(lambda: Returning(lambda x: x.argmax(-1).tolist()), (POSITIVE,), (MIXED,)),
    "name": Case(
        lambda: Returning(lambda x: "all" if bool((x > 0).all()) else "some"), (POSITIVE,), (MIXED,)
    ),
    "rows": Case(lambda: Returning(len), (POSITIVE,), (POSITIVE.repeat(4, 1),), audit=True),
    "fewer tags": Case(
        lambda: Returning(positive), (POSITIVE,), (POSITIVE * torch.tensor([1, 1, -1]),)
    ),
    "more tags": Case(
        lambda: Returning(positive), (POSITIVE * torch.tensor([1, 1, -1]),), (POSITIVE,)
    ),
    "no tags": Case(lambda: Returning(positive), (POSITIVE,), (-POSITIVE,)),
}
STATE = {
    **{name: Case(adapters, (SOME,), (SOME,), change) for name, change in CHANGES.items()},
    "switched, in training mode": Case(Adapters, (SOME,), (SOME,), CHANGES["switched"]),
    "hook": Case(
        adapters,
        (SOME,),
        (SOME,),
        lambda model: model.norm.register_forward_hook(lambda module, args, output: output * 2),
        backends=ENGINES,
    ),
    "configured": Case(
        Configured, (SOME,), (SOME,), lambda model: setattr(model.settings, "scale", 3.0)
    ),
    "another configuration": Case(
        Configured,
        (SOME,),
        (SOME,),
        lambda model: setattr(model, "settings", Settings(3.0)),
        backends=ENGINES,
    ),
    "weights": Case(
        adapters,
        (SOME,),
        (SOME,),
        lambda model: setattr(model.body.base.weight, "data", torch.ones(4, 4)),
    ),
}
CASES = [
    pytest.param(backend, case, id=f"{backend}-{kind}: {name}", marks=requires(*FACTS[backend]))
    for kind, cases in {
        "sizes": SIZES,
        "values": VALUES,
        "outputs": OUTPUTS,
        "state": STATE,
    }.items()
    for name, case in cases.items()
    for backend in case.backends
]


def positive(x: torch.Tensor) -> list[int]:
    """Return the columns that are positive in the first row."""
    return [column for column, value in enumerate(x[0].tolist()) if value > 0]


def prepared(
    case: Case, backend: str, audit: bool | float
) -> tuple[cpuaccel.OptimizedModel, torch.nn.Module]:
    """Optimize a model, and change it; return a copy of it, too."""
    torch.manual_seed(0)
    model = case.model()
    with torch.no_grad():
        fast = cpuaccel.optimize(model, [backend], example_inputs=case.example, audit=audit)
    assert fast.report.applied == (backend,)
    case.change(model)
    return fast, copy.deepcopy(model).eval()


def called(model: torch.nn.Module, case: Case) -> tuple[object, tuple[torch.Tensor, ...]]:
    """Call a model; return its output and the inputs, which it may have changed."""
    inputs = tuple(tensor.clone() for tensor in case.call)
    with torch.no_grad():
        return model(*inputs), inputs


def same(one: object, other: object) -> bool:
    """Whether two outputs have the same tensors and Python values."""
    ours, theirs = leaves(one), leaves(other)
    return (
        [leaf.path for leaf in ours] == [leaf.path for leaf in theirs]
        and constants(one) == constants(other)
        and all(
            mine.tensor.shape == its.tensor.shape
            and torch.allclose(mine.tensor, its.tensor, rtol=1e-4, atol=1e-4)
            for mine, its in zip(ours, theirs)
        )
    )


@pytest.mark.parametrize(("backend", "case"), CASES)
def test_an_audited_call_is_right(
    backend: str, case: Case, caplog: pytest.LogCaptureFixture
) -> None:
    fast, model = prepared(case, backend, audit=False)
    assert not same(called(fast, case), called(model, case))  # the analysis is off
    fast, model = prepared(case, backend, audit=case.audit)
    with caplog.at_level(logging.WARNING, logger="cpuaccel"):
        for _ in range(2):
            assert same(called(fast, case), called(model, case))
    assert fast.report.calls == {"fallback:audit": 1, "fallback:switched_off": 1}
    assert fast.report.audited == 1
    assert fast.report.largest_audited is not None
    assert fast.variants[0].off
    assert "returned a wrong output" in caplog.text


@pytest.mark.parametrize("case", [SIZES["another size class"], OUTPUTS["count"]])
def test_an_audited_call_of_the_example_is_optimized(case: Case) -> None:
    fast, model = prepared(case, "jit", audit=ALWAYS)
    with torch.no_grad():
        assert same(fast(*case.example), model(*case.example))
    assert fast.report.calls == {"optimized": 1}
    assert fast.report.audited == 1
    assert not fast.variants[0].off


def test_an_audited_call_changes_its_inputs_like_the_original(offer: Offer) -> None:
    offer(WritingMore)
    fast = cpuaccel.optimize(
        Writing(), ["writing_more"], example_inputs=torch.ones(2, 3), audit=ALWAYS
    )
    x = torch.full((2, 3), 200.0)
    assert torch.equal(fast(x), torch.full((2,), 1200.0))
    assert torch.equal(x, torch.full((2, 3), 400.0))
    assert fast.report.calls == {"fallback:audit": 1}
    assert "input x" in fast.variants[0].off
