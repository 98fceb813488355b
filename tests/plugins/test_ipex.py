"""IPEX's verdicts on all kinds of hosts, and pipelines without it."""

import logging

import pytest
import torch

import cpuaccel
from cpuaccel.testing import BackendContract, fake_host
from tests.models import batch, encoder, right
from tests.plugins.engines import verdict_on
from tests.required import requires

IPEX = "intel-extension-for-pytorch"


def test_absent_on_a_modern_torch() -> None:
    verdict = verdict_on("ipex", fake_host(packages={"torch": "2.13.0+cpu"}))
    assert verdict.reason == (
        "intel-extension-for-pytorch is not installed; its last release is for torch 2.8, and "
        "this environment has torch 2.13.0+cpu"
    )
    assert verdict.remedy == (
        "Create an environment with torch==2.8.0 and intel-extension-for-pytorch==2.8.0, or use "
        "jit or bettertransformer,jit, which need no IPEX"
    )


@pytest.mark.parametrize(
    ("torch_version", "own", "works"),
    [
        ("2.8.0", "2.8.0", True),
        ("2.8.1+cpu", "2.8.0", True),
        ("2.7.1", "2.7.0", True),
        ("2.8.0", "2.7.0", False),
        ("2.9.0", "2.8.0", False),
        ("2.13.0+cpu", "2.8.0", False),
        ("1.13.0a0+gitunknown", "2.8.0", False),
    ],
)
def test_the_minors_must_match(torch_version: str, own: str, works: bool) -> None:
    verdict = verdict_on("ipex", fake_host(packages={"torch": torch_version, IPEX: own}))
    assert bool(verdict) is works
    if not works:
        minor = own.rpartition(".")[0]
        assert verdict.reason == (
            f"{IPEX} {own} works with torch {minor} only, and this environment has torch "
            f"{torch_version}"
        )


def test_older_than_what_it_is_used_with() -> None:
    verdict = verdict_on("ipex", fake_host(packages={"torch": "2.4.0", IPEX: "2.4.0"}))
    assert "torch 2.4.0 is installed, ==2.6.* is needed" in verdict.reason


def test_without_avx2() -> None:
    host = fake_host(isa=frozenset({"sse4_2", "avx"}), packages={"torch": "2.8.0", IPEX: "2.8.0"})
    assert verdict_on("ipex", host).reason == "IPEX needs AVX2, which this processor does not have"


def test_on_another_architecture() -> None:
    verdict = verdict_on("ipex", fake_host(machine="aarch64"))
    assert verdict.reason == "IPEX needs an x86-64 processor, and this machine is aarch64"


def test_bfloat16_of_its_own_needs_a_processor_with_it() -> None:
    host = fake_host(
        isa=frozenset({"avx2"}), bf16_speed=0.05, packages={"torch": "2.8.0", IPEX: "2.8.0"}
    )
    assert verdict_on("ipex", host)
    assert (
        "bfloat16 matrix products run at 0.05 times"
        in verdict_on("ipex", host, dtype="bfloat16").reason
    )


def test_after_jit_is_refused_before_any_work() -> None:
    with pytest.raises(cpuaccel.PipelineError) as caught:
        cpuaccel.explain(torch.nn.Linear(1, 1), ["jit", "ipex"])
    assert caught.value.problems == (
        "ipex takes a module, but jit gives a script: put ipex before jit",
    )


@requires("no intel-extension-for-pytorch")
class TestWithoutIpex:
    """The pipeline ``ipex,jit`` where IPEX is not installed."""

    def test_is_skipped_with_one_warning_and_jit_goes_on(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.WARNING, logger="cpuaccel"):
            fast = cpuaccel.optimize(
                encoder("bert-qa"), ["ipex", "jit"], example_inputs=batch("bert-qa", 2, 12, right)
            )
        assert [(o.step, o.status) for o in fast.report.outcomes] == [
            ("ipex", "skipped"),
            ("jit", "applied"),
        ]
        # Transformers logs, too.
        messages = [record.message for record in caplog.records if record.name == "cpuaccel"]
        assert messages == [str(fast.report.outcomes[0])]
        assert "its last release is for torch 2.8" in messages[0]

    def test_strict_raises_the_same(self) -> None:
        with pytest.raises(cpuaccel.StepError) as caught:
            cpuaccel.optimize(encoder("bert-qa"), ["ipex", "jit"], strict=True)
        assert str(verdict_on("ipex", cpuaccel.host())) in str(caught.value)

    def test_optional_is_quiet(self, caplog: pytest.LogCaptureFixture) -> None:
        fast = cpuaccel.optimize(
            encoder("bert-qa"),
            [cpuaccel.Step("ipex", optional=True), "jit"],
            example_inputs=batch("bert-qa", 2, 12, right),
            strict=True,
        )
        assert fast.report.applied == ("jit",)
        assert not caplog.messages


class TestContract(BackendContract):
    backend = "ipex"

    def model(self) -> torch.nn.Module:
        return encoder("bert-token")

    def example_inputs(self) -> dict[str, torch.Tensor]:
        return batch("bert-token", 2, 12, right)
