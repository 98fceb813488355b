"""The backend ``onnxruntime``."""

import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal

import torch

import cpuaccel
from cpuaccel import Applied, Backend, Context, Form, Kept, Signature, Verdict
from cpuaccel_plugins.common.engine_errors import engine_errors, leave_out
from cpuaccel_plugins.common.weight_dtypes import require_weight_dtypes
from cpuaccel_plugins.onnxruntime.export import export, has_fused_attention
from cpuaccel_plugins.onnxruntime.kept import (
    keep_session,
    needs_empty_rows,
    restore_session,
)
from cpuaccel_plugins.onnxruntime.profile import execution_evidence
from cpuaccel_plugins.onnxruntime.session import (
    MASK,
    EagerForEmptyRows,
    Outputs,
    SessionCall,
    open_session,
)


class OnnxRuntimeOptions(cpuaccel.Options):
    """Options of ``onnxruntime``.

    Attributes:
        optimization: level of graph optimization: ``basic`` folds constants, ``extended`` also
            fuses operators, ``all`` also changes layouts.
    """

    optimization: Literal["disabled", "basic", "extended", "all"] = "all"


class OnnxRuntime(Backend[OnnxRuntimeOptions]):
    """Exports the model with ``torch.onnx.export`` and runs it in ONNX Runtime, in float32."""

    name = "onnxruntime"
    summary = "ONNX Runtime's CPU provider: exported with torch.onnx, any batch and length"
    takes = Form.MODULE
    gives = Form.COMPILED
    needs_tensors = True
    excludes: ClassVar[Mapping[str, str]] = {
        "bettertransformer": "removing padding depends on the inputs' values, which an export to "
        "ONNX can't represent"
    }
    requires = (("torch>=2.13", "onnxruntime>=1.32", "onnxscript>=0.7"),)
    Options = OnnxRuntimeOptions

    def accepts(self, model: Callable[..., object], signature: Signature) -> Verdict:
        """Require float32 weights: the CPU provider has no other kernels for a whole model."""
        return super().accepts(model, signature) and require_weight_dtypes(
            model, {torch.float32}, self.name
        )

    def apply(self, model: torch.nn.Module, context: Context) -> Applied:
        """Export, open a session, run it once, and read its profile."""
        signature = context.signature
        exported = export(model, signature)
        example = signature.tensor_inputs
        with tempfile.TemporaryDirectory(prefix="cpuaccel-") as folder:
            with engine_errors("ONNX Runtime", model, leave_out(self.name)):
                session = open_session(exported, self.options.optimization, profile=Path(folder))
                call: Outputs = SessionCall(session)
                call(**example)
            executed = execution_evidence(Path(session.end_profiling()), exported.operators)
        evidence: dict[str, int | float | str] = {
            **executed,
            "threads": torch.get_num_threads(),
            "weights_apart": len(exported.weights),
        }
        empty_rows = MASK in example and has_fused_attention(model)
        if empty_rows:
            evidence["rows_of_padding_only"] = "by the original model"
        return Applied(
            _with_empty_rows(call, model, signature) if empty_rows else call,
            evidence=evidence,
            kept=partial(keep_session, exported, self.options.optimization, empty_rows),
        )

    def restore(self, model: torch.nn.Module, context: Context, kept: Kept) -> Applied:
        """Open a session of the optimized model."""
        call: Outputs = SessionCall(restore_session(kept))
        if needs_empty_rows(kept):
            call = _with_empty_rows(call, model, context.signature)
        return Applied(call, kept=lambda: kept)


def _with_empty_rows(call: Outputs, model: torch.nn.Module, signature: Signature) -> Outputs:
    eager = cpuaccel.flatten(model, signature.tensors, signature.constants)
    return EagerForEmptyRows(call, eager)
