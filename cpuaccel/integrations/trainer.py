"""Transformers' Trainer, evaluating and predicting through cpuaccel.

Transformers 4 had ``--jit_mode_eval`` and ``--use_ipex``; version 5 has neither. These classes take
them on both, and any other pipeline. Use them as they are, or before another Trainer's::

    class TrainingArguments(CpuaccelArguments, Seq2SeqTrainingArguments): ...
    class MyTrainer(CpuaccelTrainer, Seq2SeqTrainer): ...
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import torch
import transformers
from torch.utils.data import DataLoader
from transformers.trainer_utils import EvalLoopOutput

import cpuaccel
from cpuaccel.errors import CpuaccelError, PipelineError
from cpuaccel.model.weights import WatchedWeights
from cpuaccel.optimized import OptimizedModel
from cpuaccel.pipeline import Pipeline
from cpuaccel.planning.resolve import resolve_here
from cpuaccel.planning.toml import read_pipeline
from cpuaccel.report import CallKey, Outcome, Status

_TIMES_COMPILATION = hasattr(transformers.Trainer, "torch_jit_model_eval")
"""Whether Trainer itself takes ``jit_compilation_time`` out of the runtime, as before version 5."""


@dataclass
class CpuaccelArguments(transformers.TrainingArguments):
    """``TrainingArguments`` that choose a pipeline for evaluation and prediction.

    ``bf16`` and ``bf16_full_eval`` make it compute in bfloat16.

    Raises:
        PipelineError: when made: the pipeline can't be right, or it is said in two ways.
    """

    jit_mode_eval: bool = field(
        default=False, metadata={"help": "Evaluate with TorchScript: the backend jit."}
    )
    use_ipex: bool = field(
        default=False,
        metadata={
            "help": "Evaluate with Intel Extension for PyTorch: the backend ipex, before jit "
            "where both are asked for. Skipped, with the reason, where it can't be had."
        },
    )
    no_cuda: bool = field(default=False, metadata={"help": "The older name of --use_cpu."})
    cpuaccel_backends: str | None = field(
        default=None,
        metadata={"help": "Evaluate through these backends, e.g. bettertransformer,jit."},
    )
    cpuaccel_pipeline: str | None = field(
        default=None, metadata={"help": "Evaluate through the pipeline in this TOML file."}
    )

    def __post_init__(self) -> None:
        """Check the pipeline before anything is loaded or computed."""
        self.use_cpu = self.use_cpu or self.no_cuda
        # Transformers 4 warns of no_cuda's end in version 5; here it goes on.
        no_cuda, self.no_cuda = self.no_cuda, False
        super().__post_init__()  # type: ignore[no-untyped-call]
        self.no_cuda = no_cuda
        pipeline = self.inference_pipeline
        if pipeline is not None:
            resolve_here(pipeline)

    @property
    def inference_pipeline(self) -> Pipeline | None:
        """What to evaluate through; None for the model as it is.

        Raises:
            PipelineError: it is said in more than one way, or the file can't be read.
        """
        flags = {"use_ipex": "ipex", "jit_mode_eval": "jit"}  # in the order to apply them
        named = [backend for flag, backend in flags.items() if getattr(self, flag)]
        said = [
            *(f"--{flag}" for flag in flags if getattr(self, flag)),
            *(["--cpuaccel_backends"] if self.cpuaccel_backends is not None else []),
            *(["--cpuaccel_pipeline"] if self.cpuaccel_pipeline is not None else []),
        ]
        if len(said) > max(1, len(named)):
            raise PipelineError(
                " and ".join(said),
                [f"these choose a pipeline in more than one way: keep only {said[-1]}"],
            )
        dtype = torch.bfloat16 if self.bf16 or self.bf16_full_eval else None
        if self.cpuaccel_pipeline is not None:
            read = read_pipeline(self.cpuaccel_pipeline)
            return replace(read, dtype=dtype or read.dtype)
        if self.cpuaccel_backends is not None:
            named = [name.strip() for name in self.cpuaccel_backends.split(",") if name.strip()]
            return Pipeline.from_steps(named, dtype)
        return Pipeline.from_steps(named, dtype) if named else None


class CpuaccelTrainer(transformers.Trainer):
    """A ``Trainer`` that evaluates and predicts through the pipeline its arguments choose.

    The pipeline is built at the first batch, reused while the weights stay as they are, and
    dropped when training goes on. To what Trainer measures are added, each behind its prefix:
    ``jit_compilation_time``, the seconds that building took in this evaluation, checks of the
    answers included, which are no part of the runtime; ``cpuaccel_<step>_applied``, 1 or 0; and
    ``cpuaccel_calls_optimized`` and ``cpuaccel_calls_original``, how many batches which of the
    two answered.

    Attributes:
        optimized: the optimized model, with its report; None before the first evaluation.
    """

    args: CpuaccelArguments
    optimized: OptimizedModel | None = None
    _weights: WatchedWeights | None = None

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
                f"evaluating through {pipeline} was asked for, but Trainer runs on "
                f"{self.args.device}. Pass --use_cpu"
            )
        built = self.optimized
        if built is None or built.original is not model or self._weights_changed():
            built = self.optimized = cpuaccel.optimize(model, pipeline=pipeline)
        return built

    def _weights_changed(self) -> bool:
        return self._weights is None or self._weights.changed()

    def evaluation_loop(
        self,
        dataloader: DataLoader[object],
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Evaluate, and add what cpuaccel did to the metrics."""
        before = self.optimized
        built = 0 if before is None else len(before.report.variants)
        answered = Counter[str]() if before is None else before.report.calls.copy()
        output = super().evaluation_loop(
            dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix
        )
        if self.optimized is None or output.metrics is None:
            return output
        if self.optimized is not before:
            built, answered = 0, Counter()
        # Only now: with bf16_full_eval Trainer casts the weights after it has wrapped the model.
        self._weights = WatchedWeights(self.optimized.original)
        report = self.optimized.report
        seconds = sum(variant.seconds for variant in report.variants[built:])
        told = _metrics(report.outcomes, report.calls - answered, seconds)
        if not _TIMES_COMPILATION:
            preparing = f"{metric_key_prefix}_model_preparation_time"
            told["model_preparation_time"] = output.metrics.get(preparing, 0.0) + seconds
        output.metrics.update({f"{metric_key_prefix}_{name}": told[name] for name in told})
        return output

    def training_step(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor],
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """Train as ever; what was built for the weights as they were is dropped."""
        self.optimized = None
        return super().training_step(model, inputs, num_items_in_batch)


def _metrics(outcomes: Iterable[Outcome], calls: Counter[str], seconds: float) -> dict[str, float]:
    """What one evaluation adds: figures only, for Trainer's loggers take no text."""
    applied = {f"cpuaccel_{o.step}_applied": float(o.status is Status.APPLIED) for o in outcomes}
    return {
        "jit_compilation_time": round(seconds, 4),
        **applied,
        "cpuaccel_calls_optimized": calls[CallKey.OPTIMIZED],
        "cpuaccel_calls_original": calls.total() - calls[CallKey.OPTIMIZED],
    }
