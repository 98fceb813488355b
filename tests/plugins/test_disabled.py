"""Each engine disabled from beneath, by its own switches: strict says that it did not run, and why.

More of this, beside what each engine needs: Inductor without a compiler and with torch.compile
switched off in test_inductor.py, 8 bit products without VNNI in int8/test_backend.py, ZenDNN on a
model without anything for it in test_zentorch.py, OpenVINO in 8 bits likewise in
test_openvino_int8.py, IPEX and optimum in tests/stacks/classic/test_disabled.py.
"""

from typing import Any

import pytest
import torch

import cpuaccel
from tests.conftest import Python
from tests.models import batch, encoder, right
from tests.plugins.engines import FACTS, needs
from tests.required import BF16, NATIVE


def refusal(engine: str, **options: object) -> str:
    """What strict says where an engine was asked for."""
    with pytest.raises(cpuaccel.StepError) as caught:
        cpuaccel.optimize(
            encoder("bert-token"),
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


def test_jit_switched_off_for_the_process(python: Python, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTORCH_JIT", "0")
    assert python(PYTORCH_JIT).stdout.strip() == (
        "strict=True was asked for, but jit: failed. torch.jit.trace gave no script: TorchScript "
        "is switched off in this process. Unset PYTORCH_JIT."
    )


def test_jit_without_its_optimizations() -> None:
    with torch.jit.optimized_execution(False):  # type: ignore[no-untyped-call]
        told = refusal("jit")
    assert told == (
        "strict=True was asked for, but jit: failed. TorchScript's optimizations are switched off "
        "in this thread. Call optimize outside of torch.jit.optimized_execution(False)."
    )


@needs(*NATIVE)
def test_bettertransformer_where_the_model_keeps_its_own_attention(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kind = type(encoder("bert-token"))
    monkeypatch.setattr(kind, "set_attn_implementation", lambda self, name: None)
    assert (
        f"bettertransformer: failed. {kind.__name__} computes its attention by itself, not through "
        "Transformers' interface. Leave bettertransformer out for this model."
    ) in refusal("bettertransformer")


@needs(*FACTS["onednn"])
@pytest.mark.filterwarnings("ignore:TF32 acceleration:UserWarning")  # of the switch itself
@pytest.mark.parametrize("engine", ["onednn", pytest.param("int8", marks=needs(*FACTS["int8"]))])
def test_onednn_switched_off_in_torch(engine: str) -> None:
    with torch.backends.mkldnn.flags(enabled=False):  # type: ignore[no-untyped-call]
        told = refusal(engine, measure=False)
    assert told == (
        f"strict=True was asked for, but {engine}: failed. oneDNN is switched off in this process. "
        "Set torch.backends.mkldnn.enabled = True."
    )


@needs(*FACTS["onednn"])
def test_onednn_on_a_model_without_anything_for_it() -> None:
    with pytest.raises(cpuaccel.StepError) as caught:
        cpuaccel.optimize(torch.nn.Tanh(), ["onednn"], example_inputs=torch.ones(2, 2), strict=True)
    assert str(caught.value) == (
        "strict=True was asked for, but onednn: failed. there is nothing in Tanh that oneDNN has "
        "fused operators for. Leave onednn out for this model."
    )


@needs(*FACTS["openvino"], BF16)
def test_openvino_in_another_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it does by itself on processors with bfloat16, where it is not told otherwise."""
    import openvino

    compile_model = openvino.Core.compile_model

    def by_default(core: Any, model: Any, device: str, settings: dict[str, Any]) -> Any:
        left = {n: v for n, v in settings.items() if n != "INFERENCE_PRECISION_HINT"}
        return compile_model(core, model, device, left)

    monkeypatch.setattr(openvino.Core, "compile_model", by_default)
    assert (
        "openvino: failed. OpenVINO was asked for float32, but it runs with the hint bf16"
    ) in refusal("openvino")


@needs(*FACTS["onnxruntime"])
def test_onnxruntime_on_another_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a build of ONNX Runtime for another device would say in its profile."""
    from cpuaccel_plugins.onnxruntime import profile

    monkeypatch.setattr(profile, "PROVIDER", "OtherExecutionProvider")
    told = refusal("onnxruntime")
    assert "ONNX Runtime was asked for OtherExecutionProvider, and executed" in told
    assert "nodes on CPUExecutionProvider. Leave onnxruntime out." in told


@needs(*FACTS["zentorch"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's of its own
def test_zentorch_that_hands_over_to_inductor(monkeypatch: pytest.MonkeyPatch) -> None:
    """What its compiler does with a graph that it has no operators for."""
    from torch._inductor.compile_fx import compile_fx

    from cpuaccel_plugins.zentorch import backend, loading

    loading.compiler()  # for real: it is imported, and not asked
    monkeypatch.setattr(backend, "compiler", lambda: compile_fx)
    with torch._inductor.config.patch(joint_custom_post_pass=None):
        told = refusal("zentorch")
    assert (
        "zentorch: failed. none of zentorch's operators was executed in BertForTokenClassification"
    ) in told
