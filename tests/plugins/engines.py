"""The tests that all engines share, in one class; each engine's file adds what only it has."""

import copy
import functools
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar

import pytest
import torch

import cpuaccel
from cpuaccel.testing import BackendContract
from cpuaccel.testing.outputs import assert_same_output
from cpuaccel.testing.subject import TOLERANCE
from tests.conftest import Python
from tests.models import batch, both, encoder, left, right, unpadded
from tests.plugins.models import Nested, Untraceable
from tests.plugins.outputs import assert_outputs_match
from tests.required import BF16, INT8, ONNXRUNTIME, OPENVINO, OPENVINO_INT8, ROOT, ZENTORCH, unmet

FACTS: dict[str, tuple[str, ...]] = {
    "jit": ("torch>=1.13",),
    "onednn": ("torch>=2.6",),
    "int8": ("torch>=2.8", INT8),
    "openvino": OPENVINO,
    "openvino_int8": OPENVINO_INT8,
    "onnxruntime": ONNXRUNTIME,
    "zentorch": ZENTORCH,
    "inductor": ("torch>=2.13",),
}
"""What each engine needs of an environment and a processor, as tests/required.py spells it."""

ARCHITECTURES = ("bert-qa", "roberta-text", "distilbert-token", "vit", "wav2vec2")

UNSEEN = [
    (1, 24, unpadded),
    (1, 17, right),
    (5, 31, right),
    (3, 20, left),
    (4, 12, both),
]
"""Batch size, length and padding: none of them the example's."""

Build = Callable[[str], cpuaccel.OptimizedModel]


def verdict_on(engine: str, host: cpuaccel.Host, **options: object) -> cpuaccel.Verdict:
    """Return the verdict of a backend's ``check`` on a host."""
    backend = cpuaccel.backends()[engine]
    return backend(backend.Options(**options)).check(host)


class EngineContract(BackendContract):
    """An engine on tiny Transformers models and on models that are hard for it.

    Attributes:
        architectures: the tiny Transformers models that it is tried on.
        config: changes of their configs.
        architecture_tolerance: largest relative difference on tiny Transformers models.
        nested_tolerance: largest relative difference on ``Nested``.
        rows: batch size of the example inputs of the tiny Transformers models.
        call: the function or library that fails on a model it can't take, as errors name it.
    """

    architectures: ClassVar[tuple[str, ...]] = ARCHITECTURES
    config: ClassVar[Mapping[str, object]] = {}
    architecture_tolerance: ClassVar[float] = TOLERANCE["float32"]
    nested_tolerance: ClassVar[float] = TOLERANCE["float32"]
    rows: ClassVar[int] = 2
    call: ClassVar[str]

    def need_engine(self) -> None:
        """Skip where a fact does not hold, and fail where the backend refuses all the same."""
        if missing := unmet(FACTS[self.backend]):
            pytest.skip(f"needs {', '.join(missing)}")
        for planned in cpuaccel.explain(self.model(), self.steps()).steps:
            assert planned.verdict, planned

    def need_dtype(self, dtype: str) -> None:
        """Skip a precision that the backend or the processor does not have."""
        if dtype not in self.dtypes:
            pytest.skip(f"{self.backend} does not support {dtype}")
        if dtype == "bfloat16" and (missing := unmet((BF16,))):
            pytest.skip(f"needs {', '.join(missing)}")

    def check_evidence(self, evidence: cpuaccel.Evidence) -> None:
        """Check the evidence of a tiny Transformers model."""

    @pytest.fixture(scope="class")
    @classmethod
    def build(cls) -> Build:
        """Optimize a tiny Transformers model, once for all tests of the class."""
        self = cls()
        self.need_engine()

        @functools.cache
        def optimized(name: str) -> cpuaccel.OptimizedModel:
            return cpuaccel.optimize(
                encoder(name, **self.config),
                self.steps(),
                example_inputs=batch(name, self.rows, 24, right),
                strict=True,
                tolerance=self.architecture_tolerance,
            )

        return optimized

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Parametrize by the class's own architectures."""
        if "architecture" in metafunc.fixturenames:
            metafunc.parametrize("architecture", self.architectures)

    def test_one_build_serves_unseen_shapes_and_paddings(
        self, build: Build, architecture: str
    ) -> None:
        fast, model = build(architecture), encoder(architecture, **self.config)
        before = fast.report.calls
        assert fast.report.applied == (self.backend,)
        for size, length, pad in UNSEEN:
            assert_outputs_match(
                fast, model, batch(architecture, size, length, pad), self.architecture_tolerance
            )
        assert fast.report.calls - before == {"optimized": len(UNSEEN)}, fast.report
        assert len(fast.report.variants) == 1
        self.check_evidence(fast.report.outcomes[-1].evidence)

    def test_outputs_stay_as_they_are_after_later_calls_and_without_the_model(self) -> None:
        self.need_engine()
        model = Nested().eval()
        fast = self.optimize_nested(model)
        calls = [torch.randn(size, 4) for size in (1, 2, 3, 2, 1)]
        outputs = [fast(x=x) for x in calls]
        copies = copy.deepcopy(outputs)
        del fast
        for output, copied, x in zip(outputs, copies, calls):
            assert_same_output(output, copied, {}, 0)
            with torch.no_grad():
                assert_same_output(output, model(x), {}, self.nested_tolerance)

    def test_inputs_that_are_views_and_carry_gradients(self) -> None:
        self.need_engine()
        model = Nested().eval()
        fast = self.optimize_nested(model)
        x = torch.randn(4, 3, requires_grad=True).t()
        assert not x.is_contiguous()
        output = fast(x=x)
        with torch.no_grad():
            assert_same_output(output, model(x), {}, self.nested_tolerance)
        before = x.detach().clone()
        for tensor in (output["last"], *output["states"][1]):
            tensor.zero_()
        assert torch.equal(x, before), "outputs don't share the inputs' memory"

    def optimize_nested(self, model: torch.nn.Module) -> cpuaccel.OptimizedModel:
        """Optimize a model that returns tensors in dicts, tuples and lists."""
        return cpuaccel.optimize(
            model,
            self.steps(),
            example_inputs=nested_example(),
            strict=True,
            tolerance=self.nested_tolerance,
        )

    def test_a_model_that_the_engine_fails_on_is_named_with_the_reason(self) -> None:
        self.need_engine()
        fast = cpuaccel.optimize(Untraceable(), self.steps(), example_inputs=torch.ones(2, 2))
        (outcome,) = fast.report.outcomes
        assert outcome.status == "failed"
        assert outcome.reason.startswith(f"{self.call} failed on Untraceable: ")
        assert outcome.remedy == f"Leave {self.backend} out for this model"


def nested_example() -> torch.Tensor:
    """Inputs of ``Nested``, enough to calibrate 8 bit engines."""
    return torch.randn(16, 4, generator=torch.Generator().manual_seed(0))


class TorchCompileContract(EngineContract):
    """An engine behind ``torch.compile``, which takes 5 to 20 seconds for each architecture."""

    architectures = ("bert-qa", "vit", "wav2vec2")
    config: ClassVar[Mapping[str, object]] = {"num_hidden_layers": 1}
    call = "torch.compile"

    def check_evidence(self, evidence: cpuaccel.Evidence) -> None:
        assert evidence["compilations"] == 2, "one graph for one row, one for several"
        assert evidence["recompilations"] == 0

    def test_a_forward_without_named_parameters(self) -> None:
        """Like peft's models: the call of the original by position is captured, too."""
        self.need_engine()
        model, x = AnyArguments().eval(), torch.randn(3, 16)
        example = {"input": x}
        fast = cpuaccel.optimize(model, self.steps(), example_inputs=example, strict=True)
        with torch.no_grad():
            assert_same_output(fast(**example), model(**example), {})


class AnyArguments(torch.nn.Module):
    """Passes what it gets to a linear."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(16, 16)

    def forward(self, *args: torch.Tensor, **kwargs: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.linear(*args, **kwargs)
        return output


OPTIMIZE_NESTED = """
import os, sys
import cpuaccel
from tests.plugins.engines import nested_example
from tests.plugins.models import Nested
model, inputs = Nested().eval(), nested_example()
fast = cpuaccel.optimize(
    model, [sys.argv[1]], example_inputs=inputs, strict=True, tolerance=0.2
)
print(fast.report.applied, os.environ.get(sys.argv[2]))
"""


class ForeignRuntimeContract(EngineContract):
    """An engine that computes in a package of its own.

    Attributes:
        package: the package.
        opt_out: the environment variable with which the package sends no usage statistics.
    """

    package: ClassVar[str]
    opt_out: ClassVar[str]

    def check_evidence(self, evidence: cpuaccel.Evidence) -> None:
        assert evidence["threads"] == torch.get_num_threads()

    @pytest.fixture
    def bert_evidence(self, build: Build) -> cpuaccel.Evidence:
        """The evidence of a tiny BERT."""
        return build("bert-qa").report.outcomes[0].evidence

    def test_weights_in_float16_are_refused(self) -> None:
        self.need_engine()
        model = Nested().eval().half()
        plan = cpuaccel.explain(model, self.steps(), example_inputs=nested_example().half())
        supported = " or ".join(sorted(self.dtypes))
        assert str(plan.steps[0].verdict) == (
            f"the model has weights in float16, and {self.backend} supports {supported} only. "
            f"Use weights in {supported}, or leave {self.backend} out"
        )

    def test_a_package_that_can_not_be_imported(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.need_engine()
        monkeypatch.setitem(sys.modules, self.package, None)  # importing it raises
        with pytest.raises(cpuaccel.StepError, match=f"{self.backend}: failed"):
            self.optimize_nested(Nested().eval())

    def test_no_usage_statistics_are_written_or_sent(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, python: Python
    ) -> None:
        self.need_engine()
        for name in (self.opt_out, "XDG_CACHE_HOME"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HOME", str(tmp_path))
        done = python(OPTIMIZE_NESTED, self.backend, self.opt_out, path=(ROOT,))
        assert done.stdout.strip() == f"('{self.backend}',) None"
        assert not list(tmp_path.iterdir()), "the package keeps an identifier of its user here"
