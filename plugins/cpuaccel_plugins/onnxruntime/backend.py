"""What ``onnxruntime`` asks for, and applying it."""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar, Literal

import torch

import cpuaccel
from cpuaccel import (
    Applied,
    Backend,
    BackendError,
    Context,
    Form,
    Signature,
    Verdict,
    describe_error,
    dtype_name,
)
from cpuaccel_plugins.onnxruntime.export import export
from cpuaccel_plugins.onnxruntime.profile import execution_evidence
from cpuaccel_plugins.onnxruntime.session import SessionCall, open_session


class OnnxRuntimeOptions(cpuaccel.Options):
    """Options of ``onnxruntime``.

    Attributes:
        optimization: how far ONNX Runtime rewrites the graph: ``basic`` folds constants,
            ``extended`` fuses operators, ``all`` changes layouts, too.
    """

    optimization: Literal["disabled", "basic", "extended", "all"] = "all"


class OnnxRuntime(Backend[OnnxRuntimeOptions]):
    """Exports the model with ``torch.onnx.export`` and runs it in ONNX Runtime, in float32."""

    name = "onnxruntime"
    summary = "ONNX Runtime's CPU provider: exported with torch.onnx, for any batch and length"
    takes = Form.MODULE
    gives = Form.COMPILED
    needs_tensors = True
    excludes: ClassVar[Mapping[str, str]] = {
        "bettertransformer": "what it does to padding depends on the inputs' values, which no "
        "export to ONNX can follow"
    }
    requires = (("torch>=2.13", "onnxruntime>=1.32", "onnxscript>=0.7"),)
    Options = OnnxRuntimeOptions

    def accepts(self, model: Callable[..., object], signature: Signature) -> Verdict:
        """Require float32 weights: ONNX Runtime's CPU kernels are for float32."""
        if not (verdict := super().accepts(model, signature)):
            return verdict
        parameters = model.parameters() if isinstance(model, torch.nn.Module) else ()
        others = {p.dtype for p in parameters if p.is_floating_point()} - {torch.float32}
        if others:
            named = " and ".join(sorted(map(dtype_name, others)))
            return Verdict.no(
                f"the model has weights in {named}, and ONNX Runtime's CPU provider has kernels "
                "for a whole model in float32 only",
                "Ask for float32, or leave onnxruntime out",
            )
        return Verdict.yes()

    def apply(self, model: torch.nn.Module, context: Context) -> Applied:
        """Export, open a session, run it once, and see what was executed."""
        exported = export(model, context.signature)
        example = context.signature.tensor_inputs
        with tempfile.TemporaryDirectory(prefix="cpuaccel-") as folder:
            try:
                session = open_session(exported, self.options.optimization, Path(folder))
                call = SessionCall(session)
                call(**example)
            except Exception as error:  # its exceptions have no base of their own
                raise BackendError(
                    f"ONNX Runtime can't run {type(model).__name__}: {describe_error(error)}",
                    "Leave onnxruntime out for this model",
                ) from error
            executed = execution_evidence(Path(session.end_profiling()), exported.operators)
        evidence = {
            **executed,
            "threads": torch.get_num_threads(),
            "weights_apart": len(exported.weights),
        }
        return Applied(call, evidence=evidence)
