"""Methods of the original other than ``forward``, called on the optimized model."""

import copy
import inspect
import logging
import pickle
from typing import Self

import pytest
import torch

import cpuaccel
from tests.conftest import Offer
from tests.fake_backends import Faithful


@pytest.fixture(autouse=True)
def _backends(offer: Offer) -> None:
    offer(Faithful)


class Base(torch.nn.Module):
    """Methods as detectors, trainers and towers have them."""

    registered: list[str] = []  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self.body = torch.nn.Linear(4, 4)
        self.threshold = 0.0
        self._trainer: str | None = None

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        Base.registered.append(cls.__name__)

    @property
    def trainer(self) -> str:
        if self._trainer is None:
            raise RuntimeError("not attached to a trainer")
        return self._trainer

    @trainer.setter
    def trainer(self, value: str) -> None:
        self._trainer = value

    def forward(self, x: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
        return self.body(x) * scale  # type: ignore[no-any-return]

    def fuse(self) -> Self:
        self.fused = True
        return self

    def set_threshold(self, value: float) -> None:
        self.threshold = value

    def predict(self, x: torch.Tensor) -> torch.Tensor:
        return self(x).sigmoid()  # type: ignore[no-any-return]

    def predict_step(self, x: torch.Tensor) -> torch.Tensor:
        return self(x) if self.trainer else x  # type: ignore[no-any-return]

    def predict_forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.forward(x, scale=2.0)

    def encode(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"body": self.body(x)}

    def shift_ids(self, ids: torch.Tensor) -> torch.Tensor:
        return ids.roll(1)

    def get_weight(self, name: str) -> torch.Tensor:
        return getattr(self.body, name)  # type: ignore[no-any-return]

    def move(self, batch: list[torch.Tensor]) -> list[torch.Tensor]:
        return [tensor.to(self.body.weight.device) for tensor in batch]

    def duplicate(self) -> Self:
        return copy.deepcopy(self)

    def describe(self) -> tuple[object, ...]:
        names = list(inspect.signature(self.forward).parameters)
        return self.__class__, inspect.getsource(type(self)), names, list(self.state_dict())


class Model(Base):
    def predict(self, x: torch.Tensor) -> torch.Tensor:
        return super().predict(x) + 1


def optimized(*, strict: bool = False) -> tuple[Model, cpuaccel.OptimizedModel]:
    torch.manual_seed(0)
    model = Model().eval()
    example = {"x": torch.ones(2, 4)}
    return model, cpuaccel.optimize(model, ["faithful"], example_inputs=example, strict=strict)


X = torch.linspace(-1, 1, 8).view(2, 4)


@pytest.mark.parametrize("name", ["predict", "predict_forward"])
@pytest.mark.parametrize("strict", [False, True], ids=["lenient", "strict"])
def test_calls_of_self_in_a_method_are_optimized(name: str, strict: bool) -> None:
    model, fast = optimized(strict=strict)
    if name == "predict_forward":
        fast.forward(X, scale=2.0)  # a variant of its own
    fast.report.reset_calls()
    torch.testing.assert_close(getattr(fast, name)(X), getattr(model, name)(X))
    assert fast.report.calls == {"optimized": 1}


def test_a_method_that_returns_the_original_returns_the_optimized_model() -> None:
    model, fast = optimized()
    for method in (fast.fuse, fast.eval, fast.float, fast.requires_grad_):
        assert method() is fast  # type: ignore[operator]
    assert model.fused


def test_what_a_method_sets_is_set_on_the_original() -> None:
    model, fast = optimized()
    fast.set_threshold(0.5)  # type: ignore[operator]
    assert model.threshold == fast.threshold == 0.5
    assert fast.report.calls == {}


def test_a_property_that_raises_while_it_is_not_set() -> None:
    model, fast = optimized()
    fast.trainer = "a trainer"
    assert fast.trainer == model.trainer == "a trainer"
    torch.testing.assert_close(fast.predict_step(X), model(X))  # type: ignore[operator]
    assert fast.report.calls == {"optimized": 1}


def test_a_method_that_computes_without_a_call_of_self_is_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model, fast = optimized()
    for _ in range(2):
        output = fast.encode(X)  # type: ignore[operator]
        torch.testing.assert_close(output, model.encode(X))
    assert fast.report.calls == {"fallback:method": 2}
    assert fast.report.fallbacks["fallback:method"] == "encode is not accelerated"
    warnings = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert "encode is not accelerated" in warnings[0]


def test_with_strict_a_method_that_computes_without_a_call_of_self_raises() -> None:
    _, fast = optimized(strict=True)
    with pytest.raises(cpuaccel.StepError, match="encode is not accelerated"):
        fast.encode(X)  # type: ignore[operator]


def test_a_method_that_computes_nothing_is_not_counted() -> None:
    model, fast = optimized(strict=True)
    ids = torch.arange(4)
    assert torch.equal(fast.shift_ids(ids), model.shift_ids(ids))  # type: ignore[operator]
    assert fast.move([X])[0] is X  # type: ignore[operator]
    assert fast.get_weight("bias") is model.body.bias  # type: ignore[operator]
    assert fast.report.calls == {}


def test_in_training_mode_methods_run_the_original() -> None:
    model, fast = optimized()
    fast.train()
    assert fast.predict(X).requires_grad  # type: ignore[operator]
    fast.encode(X)  # type: ignore[operator]
    assert fast.report.calls == {"fallback:training": 1}
    assert model.training


def test_a_method_sees_the_original() -> None:
    model, fast = optimized()
    assert fast.describe() == model.describe()  # type: ignore[operator]
    assert model.describe()[2] == ["x", "scale"]
    duplicate = fast.duplicate()  # type: ignore[operator]
    assert type(duplicate) is Model
    torch.testing.assert_close(duplicate.state_dict(), model.state_dict())
    assert Base.registered == ["Model"]


def test_methods_keep_their_names_and_signatures() -> None:
    model, fast = optimized()
    assert inspect.signature(fast.predict) == inspect.signature(model.predict)  # type: ignore[arg-type]
    assert fast.predict.__name__ == "predict"  # type: ignore[union-attr]
    assert isinstance(pickle.loads(pickle.dumps(fast)), cpuaccel.OptimizedModel)
