"""What ``openvino`` asks for, and applying it."""

from collections.abc import Callable
from pathlib import Path

import torch

import cpuaccel
from cpuaccel import Applied, Backend, BackendError, Context, Form, Signature, Verdict

from .conversion import convert
from .execution import CompiledCall
from .runtime_graph import execution_evidence

PRECISIONS = {torch.float32: "f32", torch.bfloat16: "bf16"}
"""What can be asked of OpenVINO here, as its INFERENCE_PRECISION_HINT spells it."""


class OpenVinoOptions(cpuaccel.Options):
    """Options of ``openvino``.

    Attributes:
        cache_dir: a folder in which OpenVINO keeps compiled models, and from which it loads them in
            later processes; None keeps none.
    """

    cache_dir: Path | None = None


class OpenVino(Backend[OpenVinoOptions]):
    """Converts the model with ``openvino.convert_model`` and compiles it for the CPU.

    bfloat16 is left to OpenVINO (``casts``): the float32 model with the hint ``bf16`` measured
    faster than a model that was cast before, and keeps float32 where OpenVINO finds it needed.
    """

    name = "openvino"
    summary = "OpenVINO's CPU runtime: converted from torch, compiled for any batch and length"
    takes = Form.MODULE
    gives = Form.COMPILED
    requires = (("torch>=2.8", "openvino>=2026.4"),)
    casts = True
    Options = OpenVinoOptions

    def accepts(self, model: Callable[..., object], signature: Signature) -> Verdict:
        """Conversion follows tensors, and a precision that OpenVINO was not asked for is none."""
        if not signature.tensors:
            return Verdict.no(
                "none of the inputs is a tensor, so there is nothing to convert",
                "Pass the inputs as tensors, or leave openvino out",
            )
        if others := _floating_dtypes(model) - PRECISIONS.keys():
            return Verdict.no(
                f"the model has weights in {_names(others)}, and openvino is used in "
                f"{_names(PRECISIONS)} only",
                "Cast the model with model.float() before",
            )
        return Verdict.yes()

    def apply(self, model: torch.nn.Module, context: Context) -> Applied:
        """Convert, compile, run once, and see what was executed in which precision."""
        own = _floating_dtypes(model)
        asked = context.dtype or (torch.bfloat16 if own == {torch.bfloat16} else torch.float32)
        converted = convert(model, context.signature)

        import openvino

        settings: dict[str, str | int | bool] = {
            "INFERENCE_PRECISION_HINT": PRECISIONS[asked],
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            # Pinned, its threads and torch's wait for each other on the same cores.
            "ENABLE_CPU_PINNING": False,
        }
        if self.options.cache_dir is not None:
            settings["CACHE_DIR"] = str(self.options.cache_dir)
        try:
            compiled = openvino.Core().compile_model(converted, "CPU", settings)
        except RuntimeError as error:
            raise BackendError(
                f"OpenVINO can't compile {type(model).__name__}: {_first_line(error)}",
                "Leave openvino out for this model",
            ) from error
        call = CompiledCall(
            compiled,
            context.signature.tensors,
            returns=torch.bfloat16 if own == {torch.bfloat16} else None,
        )
        call(**{n: v for n, v in context.signature.inputs.items() if isinstance(v, torch.Tensor)})
        evidence = execution_evidence(compiled, asked)
        if self.options.cache_dir is not None:
            loaded = compiled.get_property("LOADED_FROM_CACHE")
            evidence = {**evidence, "loaded_from_cache": "yes" if loaded else "no"}
        return Applied(call, evidence=evidence)


def _floating_dtypes(model: Callable[..., object]) -> set[torch.dtype]:
    if not isinstance(model, torch.nn.Module):
        return set()
    return {p.dtype for p in model.parameters() if p.is_floating_point()}


def _names(dtypes: "set[torch.dtype] | dict[torch.dtype, str]") -> str:
    return " or ".join(sorted(str(dtype).removeprefix("torch.") for dtype in dtypes))


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
