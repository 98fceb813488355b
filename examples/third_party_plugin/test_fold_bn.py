"""Run with ``pytest`` after installing the plugin."""

import torch
from cpuaccel_fold_bn import FoldBnOptions

import cpuaccel
from cpuaccel.testing import BackendContract


def network() -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = torch.nn.Sequential(
            torch.nn.Conv2d(3, 8, 3),
            torch.nn.BatchNorm2d(8),
            torch.nn.ReLU(),
            torch.nn.AdaptiveAvgPool2d(1),
            torch.nn.Flatten(),
            torch.nn.Linear(8, 4),
            torch.nn.BatchNorm1d(4),
        )
        for _ in range(3):
            model(torch.randn(8, 3, 8, 8))  # update the running statistics
    return model.eval()


class TestFoldBn(BackendContract):
    backend = "fold_bn"
    varies = ("batch",)

    def model(self) -> torch.nn.Module:
        return network()

    def example_inputs(self) -> dict[str, torch.Tensor]:
        return {"input": torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))}


def test_both_kinds_of_layers_are_folded() -> None:
    fast = cpuaccel.optimize(
        network(), ["fold_bn"], example_inputs=torch.randn(2, 3, 8, 8), strict=True
    )
    assert fast.report.outcomes[0].evidence == {"folded": 2}


def test_linear_layers_can_be_excluded() -> None:
    step = cpuaccel.Step(FoldBnOptions(linear=False))
    fast = cpuaccel.optimize(network(), [step], example_inputs=torch.randn(2, 3, 8, 8), strict=True)
    assert fast.report.outcomes[0].evidence == {"folded": 1}


def test_it_composes_with_jit() -> None:
    model = network()
    fast = cpuaccel.optimize(
        model, ["fold_bn", "jit"], example_inputs=torch.randn(2, 3, 8, 8), strict=True
    )
    assert fast.report.applied == ("fold_bn", "jit")
    image = torch.randn(5, 3, 8, 8)
    torch.testing.assert_close(fast(image), model(image).detach(), rtol=1e-4, atol=1e-5)


def test_a_model_without_batch_normalization_is_refused() -> None:
    plan = cpuaccel.explain(torch.nn.ReLU(), ["fold_bn"], example_inputs=torch.ones(1, 2))
    assert plan.steps[0].verdict.remedy == "Leave fold_bn out for this model"
