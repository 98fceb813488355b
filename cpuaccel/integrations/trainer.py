"""Transformers' Trainer with an optimized model for evaluation and prediction.

Transformers 4 has the options ``--jit_mode_eval`` and ``--use_ipex``, version 5 removed them. These
classes accept them with both versions, and any other pipeline. Use them directly or as mixins:

    class TrainingArguments(CpuaccelArguments, Seq2SeqTrainingArguments): ...
    class MyTrainer(CpuaccelTrainer, Seq2SeqTrainer): ...
"""

from collections import Counter
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
import transformers
from torch.utils.data import DataLoader
from transformers.trainer_utils import EvalLoopOutput

import cpuaccel
from cpuaccel.errors import CpuaccelError, PipelineError
from cpuaccel.optimized import OptimizedModel
from cpuaccel.pipeline import Pipeline
from cpuaccel.planning.resolve import resolve_here
from cpuaccel.planning.toml import read_pipeline
from cpuaccel.report import CallKey, Report, Status

_TIMES_COMPILATION = hasattr(transformers.Trainer, "torch_jit_model_eval")
"""Whether Trainer subtracts ``jit_compilation_time`` from the runtime, as before version 5."""

_HAS_USE_CPU = "use_cpu" in {each.name for each in fields(transformers.TrainingArguments)}
"""Whether ``no_cuda`` has the new name, as from Transformers 4.34 on."""


@dataclass
class CpuaccelArguments(transformers.TrainingArguments):
    """``TrainingArguments`` that choose a pipeline for evaluation and prediction.

    ``bf16`` and ``bf16_full_eval`` set the pipeline's dtype to bfloat16.

    Raises:
        PipelineError: the pipeline is invalid, or two options choose one.
    """

    jit_mode_eval: bool = field(
        default=False, metadata={"help": "Evaluate with TorchScript (the backend jit)."}
    )
    use_ipex: bool = field(
        default=False,
        metadata={
            "help": "Evaluate with Intel Extension for PyTorch (the backend ipex, before jit if "
            "both are set). It is skipped with a warning if it is not available."
        },
    )
    no_cuda: bool = field(default=False, metadata={"help": "Deprecated name of --use_cpu."})
    cpuaccel_backends: str | None = field(
        default=None,
        metadata={"help": "Evaluate with these backends, such as bettertransformer,jit."},
    )
    cpuaccel_pipeline: str | None = field(
        default=None, metadata={"help": "Evaluate with the pipeline in this TOML file."}
    )

    def __post_init__(self) -> None:
        """Validate the pipeline before any model is loaded."""
        if _HAS_USE_CPU:
            self.use_cpu = self.use_cpu or self.no_cuda
            # Hide no_cuda from Transformers 4, which warns that version 5 removes it.
            no_cuda, self.no_cuda = self.no_cuda, False
            super().__post_init__()  # type: ignore[no-untyped-call]
            self.no_cuda = no_cuda
        else:
            super().__post_init__()  # type: ignore[no-untyped-call]
        pipeline = self.inference_pipeline
        if pipeline is not None:
            resolve_here(pipeline)

    @property
    def inference_pipeline(self) -> Pipeline | None:
        """The pipeline to evaluate with; None without one.

        Raises:
            PipelineError: two options choose a pipeline, or the file is invalid.
        """
        flags = {"use_ipex": "ipex", "jit_mode_eval": "jit"}  # in the order to apply them
        named = [backend for flag, backend in flags.items() if getattr(self, flag)]
        known = (*flags, "cpuaccel_backends", "cpuaccel_pipeline")
        options = [f"--{name}" for name in known if getattr(self, name) not in (False, None)]
        if len(options) > max(1, len(named)):
            raise PipelineError(
                " and ".join(options),
                [f"only one of them can choose the pipeline: keep {options[-1]}"],
            )
        dtype = torch.bfloat16 if self.bf16 or self.bf16_full_eval else None
        if self.cpuaccel_pipeline is not None:
            pipeline = read_pipeline(self.cpuaccel_pipeline)
            return replace(pipeline, dtype=dtype or pipeline.dtype)
        if self.cpuaccel_backends is not None:
            named = [name.strip() for name in self.cpuaccel_backends.split(",") if name.strip()]
            return Pipeline.from_steps(named, dtype)
        return Pipeline.from_steps(named, dtype) if named else None


class CpuaccelTrainer(transformers.Trainer):
    """A ``Trainer`` that evaluates and predicts with the pipeline that its arguments choose.

    With ``Seq2SeqTrainer`` and ``predict_with_generate`` the optimized model generates.

    The first batch builds the optimized model, and the first one after the weights change rebuilds
    it. A training step drops it. Trainer's metrics get, with its prefix: ``jit_compilation_time``,
    the seconds of building and verifying in this evaluation, which are not part of the runtime;
    ``cpuaccel_<step>_applied``, 1 or 0; and ``cpuaccel_calls_optimized`` and
    ``cpuaccel_calls_original``, the number of batches that each of the two served.

    Attributes:
        optimized: the optimized model, with its report; None before the first evaluation.
    """

    args: CpuaccelArguments
    optimized: OptimizedModel | None = None

    def _wrap_model(
        self,
        model: torch.nn.Module,
        training: bool = True,
        dataloader: DataLoader[object] | None = None,
    ) -> torch.nn.Module:
        pipeline = self.args.inference_pipeline
        if training or pipeline is None:
            wrapped: torch.nn.Module = super()._wrap_model(model, training, dataloader)
            return wrapped
        if self.args.device.type != "cpu":
            raise CpuaccelError(
                f"{pipeline} runs on the CPU only, but Trainer runs on {self.args.device}. Pass "
                "--use_cpu"
            )
        if self.optimized is None or self.optimized.original is not model:
            self.optimized = cpuaccel.optimize(model, pipeline=pipeline)
        return self.optimized

    def evaluation_loop(
        self,
        dataloader: DataLoader[object],
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Evaluate, and add cpuaccel's metrics."""
        before = self.optimized
        known: tuple[object, ...] = () if before is None else before.report.builds
        calls = Counter[str]() if before is None else before.report.calls
        output = super().evaluation_loop(
            dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix
        )
        if self.optimized is None or output.metrics is None:
            return output
        if self.optimized is not before:
            known, calls = (), Counter()
        report = self.optimized.report
        new = [build for build in report.builds if not any(build is each for each in known)]
        added = self._metrics(report, report.calls - calls, sum(build.seconds for build in new))
        if not _TIMES_COMPILATION:
            preparing = f"{metric_key_prefix}_model_preparation_time"
            seconds = added["jit_compilation_time"]
            added["model_preparation_time"] = output.metrics.get(preparing, 0.0) + seconds
        output.metrics.update({f"{metric_key_prefix}_{name}": added[name] for name in added})
        return output

    def prediction_step(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor | Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
        **generate: Any,
    ) -> tuple[Any, torch.Tensor | None, torch.Tensor | None]:
        """Predict one batch; ``generate`` are arguments for ``Seq2SeqTrainer``."""
        original = self.model
        if model is self.optimized:
            self.model = model  # on which Seq2SeqTrainer calls generate, not on its argument
        try:
            return super().prediction_step(
                model, inputs, prediction_loss_only, ignore_keys, **generate
            )
        finally:
            self.model = original

    def training_step(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor],
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """Train one step. Drops the optimized model: it holds memory that training needs."""
        self.optimized = None
        return super().training_step(model, inputs, num_items_in_batch)

    def _metrics(self, report: Report, calls: Counter[str], seconds: float) -> dict[str, float]:
        """Make the metrics of one evaluation, numbers only: Trainer's loggers accept no text."""
        pipeline = self.args.inference_pipeline
        assert pipeline is not None
        outcomes = [*report.outcomes, *([report.generation.outcome] if report.generation else [])]
        return {
            "jit_compilation_time": round(seconds, 4),
            **{f"cpuaccel_{step.backend}_applied": 0.0 for step in pipeline.steps},
            **{f"cpuaccel_{o.step}_applied": float(o.status is Status.APPLIED) for o in outcomes},
            "cpuaccel_calls_optimized": calls[CallKey.OPTIMIZED],
            "cpuaccel_calls_original": calls.total() - calls[CallKey.OPTIMIZED],
        }
