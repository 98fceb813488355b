"""IPEX and optimum disabled from beneath: strict says that they replaced nothing."""

from collections.abc import Callable

import pytest

import cpuaccel
from tests.stacks.cases import PADDED_RIGHT, assert_cases_match, example_of, model_of

NAME = "bert-qa"
FAILED = {
    "ipex": "ipex: failed. ipex.optimize replaced no module of BertForQuestionAnswering. Leave "
    "ipex out for this model.",
    # Optimum notices it by itself.
    "bettertransformer": "bettertransformer: failed. BetterTransformer.transform failed on "
    "BertForQuestionAnswering: Exception: The transformation of the model",
}

Disable = Callable[[pytest.MonkeyPatch], cpuaccel.Step]


def ipex_by_its_option(monkeypatch: pytest.MonkeyPatch) -> cpuaccel.Step:
    return cpuaccel.Step("ipex", weights_prepack=False)


def ipex_without_replacements(monkeypatch: pytest.MonkeyPatch) -> cpuaccel.Step:
    """IPEX itself runs, but knows of no module that it could replace."""
    from intel_extension_for_pytorch.nn.utils import _parameter_wrapper

    monkeypatch.setattr(_parameter_wrapper, "IPEX_WEIGHT_PREPACK_MODULE_CPU", dict)
    return cpuaccel.Step("ipex")


def optimum_without_replacements(monkeypatch: pytest.MonkeyPatch) -> cpuaccel.Step:
    """Optimum itself runs, and takes BERT for a model that has nothing to replace."""
    from optimum.bettertransformer.models import BetterTransformerManager

    monkeypatch.setitem(BetterTransformerManager.MODEL_MAPPING, "bert", {})
    return cpuaccel.Step("bettertransformer")


DISABLED = [ipex_by_its_option, ipex_without_replacements, optimum_without_replacements]


@pytest.mark.parametrize("disable", DISABLED)
def test_strict_raises(disable: Disable, monkeypatch: pytest.MonkeyPatch) -> None:
    step = disable(monkeypatch)
    with pytest.raises(cpuaccel.StepError) as caught:
        cpuaccel.optimize(model_of(NAME), [step], example_inputs=example_of(NAME), strict=True)
    assert FAILED[step.backend] in str(caught.value)


@pytest.mark.parametrize("disable", DISABLED)
def test_otherwise_it_fails_and_jit_uses_the_original(
    disable: Disable, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, step = model_of(NAME), disable(monkeypatch)
    fast = cpuaccel.optimize(model, [step, "jit"], example_inputs=example_of(NAME))
    assert [(o.step, o.status) for o in fast.report.outcomes] == [
        (step.backend, "failed"),
        ("jit", "applied"),
    ]
    assert str(fast.report.outcomes[0]).startswith(FAILED[step.backend])
    assert_cases_match(fast, model, NAME, PADDED_RIGHT)
