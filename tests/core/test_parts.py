"""Parts of a model that its methods call by themselves, as models with several towers do."""

from typing import Any

import pytest
import torch

import cpuaccel
from tests.conftest import Offer
from tests.fake_backends import Faithful, Fake

X = torch.linspace(-1, 1, 8).view(2, 4)


def tower() -> torch.nn.Sequential:
    return torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.GELU(), torch.nn.Linear(6, 4))


class Towers(torch.nn.Module):
    """Two towers, each with a method that calls it."""

    def __init__(self) -> None:
        super().__init__()
        self.text = tower()
        self.image = tower()
        self.layers = torch.nn.ModuleList([tower()])
        self.projection = torch.nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.embed_text(x) + self.embed_image(x)

    def embed_text(self, x: torch.Tensor) -> torch.Tensor:
        return self.projection(self.text(x))  # type: ignore[no-any-return]

    def embed_image(self, x: torch.Tensor) -> torch.Tensor:
        return self.projection(self.image.forward(x))  # type: ignore[no-any-return]

    def embed_both(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"text": self.text(x), "image": self.image(x)}

    def scores(self, x: torch.Tensor) -> torch.Tensor:
        return self(x).softmax(-1) + self.text(x)  # type: ignore[no-any-return]

    def by_layers(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.text:
            x = layer(x)
        return self.layers[0](x)  # type: ignore[no-any-return]

    def replaced(self, x: torch.Tensor) -> torch.Tensor:
        self.text = self.image
        return self.text(x)

    def parts(self) -> list[str]:
        return [name for name, _ in self.named_children()]


class Wrong(Fake):
    name = "wrong"

    def change(self, model: Any, inputs: dict[str, object]) -> object:
        return model(**inputs) * 1.5


class Breaking(Fake):
    """Right until it is broken."""

    name = "breaking"
    broken = False

    def change(self, model: Any, inputs: dict[str, object]) -> object:
        if Breaking.broken:
            raise RuntimeError("illegal instruction, nearly")
        return model(**inputs)


@pytest.fixture(autouse=True)
def _backends(offer: Offer, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(Faithful, Wrong, Breaking)
    monkeypatch.setattr(Breaking, "broken", False)


def optimized(*steps: str, **settings: Any) -> tuple[Any, Any]:
    torch.manual_seed(0)
    model = Towers().eval()
    return model, cpuaccel.optimize(model, steps or ["faithful"], **settings)


def same(found: object, expected: object) -> None:
    torch.testing.assert_close(found, expected, check_stride=False)


@pytest.mark.parametrize("strict", [False, True], ids=["lenient", "strict"])
@pytest.mark.parametrize("name", ["embed_text", "embed_image"])
def test_a_part_is_optimized(name: str, strict: bool) -> None:
    model, fast = optimized(strict=strict)
    for _ in range(2):
        output = getattr(fast, name)(X)
        same(output, getattr(model, name)(X).detach())
        assert not output.requires_grad
    assert fast.report.calls == {"optimized": 2}
    part = name.removeprefix("embed_")
    assert {key: one.calls for key, one in fast.report.parts.items()} == {part: {"optimized": 2}}
    assert f"{part}: step      faithful: applied" in str(fast.report)
    assert fast.report.to_dict()["parts"][part]["calls"] == {"optimized": 2}


def test_several_parts_in_one_method() -> None:
    model, fast = optimized()
    same(fast.embed_both(X), {k: t.detach() for k, t in model.embed_both(X).items()})
    assert fast.report.calls == {"optimized": 1}
    assert set(fast.report.parts) == {"text", "image"}


def test_a_part_and_the_model_itself() -> None:
    model, fast = optimized()
    same(fast.scores(X), model.scores(X).detach())
    assert fast.report.calls == {"optimized": 1}


def test_parts_of_parts_are_the_originals(caplog: pytest.LogCaptureFixture) -> None:
    model, fast = optimized()
    same(fast.by_layers(X), model.by_layers(X).detach())
    assert fast.report.calls == {"fallback:method": 1}
    assert "by_layers is not accelerated" in caplog.text
    assert fast.report.parts == {}


def test_a_method_that_replaces_a_part() -> None:
    model, fast = optimized()
    fast.embed_text(X)
    expected = model.image(X).detach()
    same(fast.replaced(X), expected)
    assert model.text is model.image


def test_changed_weights() -> None:
    model, fast = optimized()
    fast.embed_text(X)
    with torch.no_grad():
        model.text[0].weight.mul_(3)
    same(fast.embed_text(X), model.embed_text(X).detach())
    assert fast.report.parts["text"].calls["optimized"] == 2


def test_a_part_whose_step_is_not_applied(caplog: pytest.LogCaptureFixture) -> None:
    model, fast = optimized("wrong")
    same(fast.embed_text(X), model.embed_text(X).detach())
    assert fast.report.calls == {"fallback:method": 1}
    assert fast.report.parts["text"].calls == {"fallback:not_applied": 1}
    assert "embed_text is not accelerated" in caplog.text


def test_a_part_that_raises_later() -> None:
    model, fast = optimized("breaking")
    fast.embed_text(X)
    Breaking.broken = True
    same(fast.embed_text(X), model.embed_text(X).detach())
    assert fast.report.calls == {"optimized": 1, "fallback:method": 1}
    assert "RuntimeError" in fast.report.fallbacks["fallback:method"]


def test_strict_raises_where_a_part_falls_back() -> None:
    _, fast = optimized("wrong", strict=True)
    with pytest.raises(cpuaccel.StepError):
        fast.embed_text(X)


def test_in_training_mode_methods_run_the_original() -> None:
    _, fast = optimized()
    fast.train()
    assert fast.embed_text(X).requires_grad
    assert fast.report.parts == {}


def test_a_method_without_tensors_sees_the_parts() -> None:
    _, fast = optimized()
    assert fast.parts() == ["text", "image", "layers", "projection"]
    assert fast.get_submodule("text") is fast.original.text


def test_an_original_in_training_mode_is_called_in_eval_mode() -> None:
    torch.manual_seed(0)
    model = Towers()
    model.text.append(torch.nn.Dropout(0.5))
    fast: Any = cpuaccel.optimize(model.train(), ["faithful"])
    found = fast.embed_text(X)
    same(found, model.eval().embed_text(X).detach())
