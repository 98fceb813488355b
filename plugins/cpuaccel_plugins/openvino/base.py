"""The base of the OpenVINO backends."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

import torch

from cpuaccel import Applied, Backend, Context, Form, Kept, Options, Signature, Verdict
from cpuaccel_plugins.common.engine_errors import engine_errors, leave_out
from cpuaccel_plugins.common.weight_dtypes import require_weight_dtypes, weight_dtypes
from cpuaccel_plugins.openvino.errors import describe_openvino_error
from cpuaccel_plugins.openvino.execution import CompiledCall
from cpuaccel_plugins.openvino.kept import Settings, keep_compiled, restore_compiled
from cpuaccel_plugins.openvino.one_key import UNFUSED, attends_to_one_key
from cpuaccel_plugins.openvino.runtime_graph import execution_evidence

if TYPE_CHECKING:
    import openvino

DECODING = ("torch>=2.11", "transformers>=5.23", "openvino>=2026.4")
"""What ``generate`` requires: Transformers' exporters."""

PRECISIONS = {torch.float32: "f32", torch.bfloat16: "bf16"}
"""Supported precisions, with their names in INFERENCE_PRECISION_HINT."""


def cpu_settings(precision: torch.dtype) -> Settings:
    """Compile for one call at a time, in one precision, with as many threads as torch uses."""
    return {
        "INFERENCE_PRECISION_HINT": PRECISIONS[precision],
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        # Pinned threads and torch's threads would wait for each other on the same cores.
        "ENABLE_CPU_PINNING": False,
    }


OptionsT = TypeVar("OptionsT", bound=Options)


class OpenVinoBackend(Backend[OptionsT], Generic[OptionsT]):
    """A backend that converts the model and compiles it for OpenVINO's CPU runtime.

    OpenVINO casts to bfloat16 itself (``casts``): the float32 model with the hint ``bf16`` is
    faster than a model that is cast before conversion, and keeps float32 where it is needed.
    """

    takes = Form.MODULE
    gives = Form.COMPILED
    needs_tensors = True
    casts = True

    def accepts(self, model: Callable[..., object], signature: Signature) -> Verdict:
        """Require weights in a supported precision."""
        return super().accepts(model, signature) and require_weight_dtypes(
            model, PRECISIONS, self.name
        )

    def compile(
        self,
        model: torch.nn.Module,
        converted: "openvino.Model",
        context: Context,
        cache_dir: Path | None = None,
    ) -> Applied:
        """Compile with as many threads as torch uses, run once, and check the precision."""
        import openvino

        bfloat16 = weight_dtypes(model) == {torch.bfloat16}
        precision = context.dtype or (torch.bfloat16 if bfloat16 else torch.float32)
        settings = cpu_settings(precision)
        if attends_to_one_key(converted, context.signature.tensor_inputs):
            settings |= UNFUSED
        if cache_dir is not None:
            settings["CACHE_DIR"] = str(cache_dir)
        remedy, describe = leave_out(self.name), describe_openvino_error
        with engine_errors("OpenVINO's compile_model", model, remedy, describe=describe):
            compiled = openvino.Core().compile_model(converted, "CPU", settings)
        signature = context.signature
        returns = torch.bfloat16 if bfloat16 else None
        call = CompiledCall(compiled, signature.tensors, returns, self.name)
        with engine_errors("OpenVINO's infer", model, remedy, describe=describe):
            call(**signature.tensor_inputs)
        evidence = execution_evidence(compiled, precision)
        if cache_dir is not None:
            loaded = compiled.get_property("LOADED_FROM_CACHE")
            evidence["loaded_from_cache"] = "yes" if loaded else "no"
        kept = partial(keep_compiled, compiled, settings, returns)
        return Applied(call, evidence=evidence, kept=kept)

    def restore(self, model: torch.nn.Module, context: Context, kept: Kept) -> Applied:
        """Import the compiled model."""
        call = restore_compiled(kept, context.signature, self.name)
        return Applied(call, kept=lambda: kept)
