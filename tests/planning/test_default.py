import pytest
import torch

import cpuaccel
from cpuaccel.errors import PipelineError
from cpuaccel.planning import default
from cpuaccel.planning.default import default_pipeline
from cpuaccel.testing import fake_host


@pytest.mark.parametrize(
    ("packages", "expected"),
    [
        ({"torch": "2.13.0+cpu", "transformers": "5.23.0"}, "bettertransformer,onednn"),
        ({"torch": "2.8.0", "transformers": "4.48.3", "optimum": "1.24.0"}, "onednn"),
        ({"torch": "2.13.0"}, "onednn"),
        ({"torch": "1.13.0a0+gitunknown", "transformers": "4.30.2"}, "jit"),
    ],
)
def test_it_suits_the_versions(packages: dict[str, str], expected: str) -> None:
    assert str(default_pipeline(fake_host(packages=packages))) == expected


def test_only_the_last_step_is_required() -> None:
    steps = default_pipeline(fake_host()).steps
    assert [step.optional for step in steps] == [True, False]


def test_without_its_backends_the_error_names_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(default, "_RECIPES", (((), (), "no_such_backend"),))
    with pytest.raises(PipelineError, match='backends="auto"') as caught:
        default_pipeline(fake_host())
    assert "onednn" in str(caught.value)


def test_optimize_uses_it(caplog: pytest.LogCaptureFixture) -> None:
    """A model that bettertransformer does not support is optimized without a warning."""
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.GELU()).eval()
    fast = cpuaccel.optimize(model, example_inputs=torch.ones(2, 8))
    torch.testing.assert_close(fast(torch.ones(2, 8)), model(torch.ones(2, 8)))
    last = fast.report.outcomes[-1]
    assert (last.step, last.status) == (
        default_pipeline(cpuaccel.host()).steps[-1].backend,
        "applied",
    )
    assert not [record for record in caplog.records if record.name == "cpuaccel"]
