"""IPEX disabled from beneath: strict says that it replaced nothing."""

from collections.abc import Callable

import pytest

import cpuaccel
from tests.stacks.answers import PADDED_RIGHT, assert_same_answers, example_of, model_of

NAME = "bert-qa"
REPLACED_NOTHING = (
    "ipex: failed. ipex.optimize replaced no module of BertForQuestionAnswering. Leave ipex out "
    "for this model."
)


def without_its_option(monkeypatch: pytest.MonkeyPatch) -> cpuaccel.Step:
    return cpuaccel.Step("ipex", weights_prepack=False)


def without_its_replacements(monkeypatch: pytest.MonkeyPatch) -> cpuaccel.Step:
    """IPEX itself runs, but knows of no module that it could replace."""
    from intel_extension_for_pytorch.nn.utils import _parameter_wrapper

    monkeypatch.setattr(_parameter_wrapper, "IPEX_WEIGHT_PREPACK_MODULE_CPU", dict)
    return cpuaccel.Step("ipex")


DISABLED = [without_its_option, without_its_replacements]


@pytest.mark.parametrize("disabled", DISABLED)
def test_strict_raises(
    disabled: Callable[[pytest.MonkeyPatch], cpuaccel.Step], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(cpuaccel.StepError) as caught:
        cpuaccel.optimize(
            model_of(NAME), [disabled(monkeypatch)], example_inputs=example_of(NAME), strict=True
        )
    assert str(caught.value) == f"strict=True was asked for, but {REPLACED_NOTHING}"


@pytest.mark.parametrize("disabled", DISABLED)
def test_otherwise_it_failed_and_jit_goes_on_with_the_original(
    disabled: Callable[[pytest.MonkeyPatch], cpuaccel.Step], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of(NAME)
    fast = cpuaccel.optimize(model, [disabled(monkeypatch), "jit"], example_inputs=example_of(NAME))
    assert [(o.step, o.status) for o in fast.report.outcomes] == [
        ("ipex", "failed"),
        ("jit", "applied"),
    ]
    assert str(fast.report.outcomes[0]) == REPLACED_NOTHING
    assert_same_answers(fast, model, NAME, PADDED_RIGHT)
