"""Engines that are disabled by their own switches: with strict=True the step fails with the reason.

See also test_inductor.py (no compiler, torch.compile disabled), int8/test_backend.py (no VNNI),
test_zentorch.py and test_openvino_int8.py (nothing to replace), and
tests/stacks/classic/test_disabled.py (IPEX and optimum).
"""

from typing import Any

import pytest
import torch

import cpuaccel
from tests.conftest import Python
from tests.models import batch, encoder, right
from tests.plugins.engines import FACTS
from tests.required import BF16, NATIVE, requires


def step_error(engine: str, **options: object) -> str:
    """Optimize with strict=True, and return the message of the StepError."""
    with pytest.raises(cpuaccel.StepError) as caught:
        cpuaccel.optimize(
            encoder("bert-token", num_hidden_layers=1),
            [cpuaccel.Step(engine, **options)],
            example_inputs=batch("bert-token", 2, 12, right),
            strict=True,
        )
    return str(caught.value)


PYTORCH_JIT = """
import torch, cpuaccel
try:
    cpuaccel.optimize(torch.nn.ReLU(), ["jit"], example_inputs=torch.ones(1, 2), strict=True)
except cpuaccel.StepError as error:
    print(error)
"""


def test_jit_disabled_in_the_process(python: Python, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTORCH_JIT", "0")
    message = python(PYTORCH_JIT).stdout
    assert "jit: failed. torch.jit.trace returned no script" in message
    assert "Unset PYTORCH_JIT" in message


def test_jit_without_its_optimizations() -> None:
    with torch.jit.optimized_execution(False):  # type: ignore[no-untyped-call]
        message = step_error("jit")
    assert "jit: failed. TorchScript's optimizations are disabled in this thread" in message


@requires(*NATIVE)
def test_bettertransformer_on_a_model_with_its_own_attention(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kind = type(encoder("bert-token"))
    monkeypatch.setattr(kind, "set_attn_implementation", lambda self, name: None)
    assert (
        f"bettertransformer: failed. {kind.__name__} does not use Transformers' attention interface"
    ) in step_error("bettertransformer")


@requires(*FACTS["onednn"])
@pytest.mark.filterwarnings("ignore:TF32 acceleration:UserWarning")  # of mkldnn.flags itself
@pytest.mark.parametrize("engine", ["onednn", pytest.param("int8", marks=requires(*FACTS["int8"]))])
def test_onednn_disabled_in_torch(engine: str) -> None:
    with torch.backends.mkldnn.flags(enabled=False):  # type: ignore[no-untyped-call]
        message = step_error(engine, measure=False)
    assert f"{engine}: failed. " in message
    assert "Set torch.backends.mkldnn.enabled = True" in message


@requires(*FACTS["onednn"])
def test_onednn_on_a_model_without_linears_and_convolutions() -> None:
    with pytest.raises(cpuaccel.StepError, match="onednn: failed"):
        cpuaccel.optimize(torch.nn.Tanh(), ["onednn"], example_inputs=torch.ones(2, 2), strict=True)


@requires(*FACTS["openvino"], BF16)
def test_openvino_in_another_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a hint, OpenVINO uses bfloat16 on processors that support it."""
    import openvino

    compile_model = openvino.Core.compile_model

    def by_default(core: Any, model: Any, device: str, settings: dict[str, Any]) -> Any:
        left = {n: v for n, v in settings.items() if n != "INFERENCE_PRECISION_HINT"}
        return compile_model(core, model, device, left)

    monkeypatch.setattr(openvino.Core, "compile_model", by_default)
    assert ("openvino: failed. OpenVINO must run in float32, but uses the hint bf16") in step_error(
        "openvino"
    )


@requires(*FACTS["onnxruntime"])
def test_onnxruntime_on_another_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    """A build of ONNX Runtime for another device has another provider in its profile."""
    from cpuaccel_plugins.onnxruntime import profile

    monkeypatch.setattr(profile, "PROVIDER", "OtherExecutionProvider")
    message = step_error("onnxruntime")
    assert "ONNX Runtime must run on OtherExecutionProvider, but ran" in message
    assert "nodes on CPUExecutionProvider" in message


@requires(*FACTS["zentorch"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own
def test_zentorch_that_falls_back_to_inductor(monkeypatch: pytest.MonkeyPatch) -> None:
    """zentorch compiles a graph without its operators with Inductor."""
    from torch._inductor.compile_fx import compile_fx

    from cpuaccel_plugins.zentorch import backend

    backend.compiler()  # the real import
    monkeypatch.setattr(backend, "compiler", lambda: compile_fx)
    with torch._inductor.config.patch(joint_custom_post_pass=None):
        message = step_error("zentorch")
    assert (
        "zentorch: failed. BertForTokenClassification executes no operator of zentorch"
    ) in message
