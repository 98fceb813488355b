"""The options that all examples share, and the parser."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NoReturn

from transformers import HfArgumentParser, Seq2SeqTrainingArguments

from common.exits import UsageError
from cpuaccel.errors import did_you_mean
from cpuaccel.integrations.trainer import CpuaccelArguments

RUN_OPTIONS = (
    "output_dir",
    "overwrite_output_dir",
    "do_eval",
    "do_predict",
    "per_device_eval_batch_size",
    "compare_with_eager",
    "jit_mode_eval",
    "use_ipex",
    "cpuaccel_backends",
    "cpuaccel_pipeline",
    "bf16_full_eval",
    "generation_num_beams",
    "generation_max_length",
    "no_cuda",
    "disable_tqdm",
)
"""The options of Trainer that ``--help`` shows; it takes over a hundred."""


@dataclass
class ModelArguments:
    """Model."""

    model_name_or_path: str = field(
        metadata={"help": "A folder written by save_pretrained, or a model's name on the hub."}
    )
    config_name: str | None = field(
        default=None, metadata={"help": "A folder or hub name of the config, if not the model's."}
    )
    tokenizer_name: str | None = field(
        default=None,
        metadata={
            "help": "A folder or hub name of the tokenizer or processor, if not the model's."
        },
    )
    model_revision: str = field(
        default="main", metadata={"help": "The model's branch, tag or commit on the hub."}
    )
    cache_dir: str | None = field(
        default=None, metadata={"help": "The folder for downloads from the hub."}
    )
    token: str | None = field(
        default=None, metadata={"help": "The token for a private model or dataset on the hub."}
    )
    trust_remote_code: bool = field(
        default=False, metadata={"help": "Run code from the hub that belongs to the model."}
    )


@dataclass
class DataArguments:
    """Data; examples add options."""

    dataset_name: str | None = field(
        default=None, metadata={"help": "A dataset's name on the hub, or a local folder of one."}
    )
    dataset_config_name: str | None = field(
        default=None, metadata={"help": "The dataset's configuration on the hub."}
    )
    validation_file: str | None = field(
        default=None, metadata={"help": "A local file to evaluate on with --do_eval."}
    )
    test_file: str | None = field(
        default=None, metadata={"help": "A local file to predict with --do_predict."}
    )
    max_eval_samples: int | None = field(
        default=None, metadata={"help": "Evaluate only this many rows, from the first."}
    )
    max_predict_samples: int | None = field(
        default=None, metadata={"help": "Predict only this many rows, from the first."}
    )
    preprocessing_num_workers: int | None = field(
        default=None, metadata={"help": "Number of processes that prepare the data."}
    )
    overwrite_cache: bool = field(default=False, metadata={"help": "Download the dataset again."})


@dataclass
class RunArguments(CpuaccelArguments):
    """Run; all of the options of Trainer and cpuaccel, and these."""

    output_dir: str = field(metadata={"help": "The folder for results."})
    do_eval: bool = field(default=False, metadata={"help": "Evaluate on the validation data."})
    do_predict: bool = field(default=False, metadata={"help": "Predict the test data."})
    per_device_eval_batch_size: int = field(default=16, metadata={"help": "Rows in a batch."})
    overwrite_output_dir: bool = field(
        default=False,
        metadata={"help": "Start over instead of continuing an interrupted run."},
    )
    dataloader_pin_memory: bool = field(
        default=False, metadata={"help": "Only useful with an accelerator."}
    )
    compare_with_eager: bool = field(
        default=False,
        metadata={"help": "Also run the original model, in turn, and report the speedup."},
    )

    @property
    def changes_the_model(self) -> bool:
        """Whether the model is to be optimized or cast."""
        return self.inference_pipeline is not None or self.bf16 or self.bf16_full_eval


@dataclass
class GeneratingRunArguments(RunArguments, Seq2SeqTrainingArguments):
    """Run; all of the options of Seq2SeqTrainer and cpuaccel, and these."""

    predict_with_generate: bool = field(
        default=True, metadata={"help": "Always: the metrics are those of generated texts."}
    )
    # Not an option here: the model's own settings are part of what a run depends on.
    generation_config: None = field(default=None, init=False)

    def __post_init__(self) -> None:
        """Check what argparse can't.

        Raises:
            UsageError: a number is below 1, or texts are not to be generated.
            PipelineError: the pipeline is invalid.
        """
        super().__post_init__()
        require_positive(self, "generation_num_beams", "generation_max_length")
        if not self.predict_with_generate:
            raise UsageError("--predict_with_generate must be true, got false. Leave it out")


def require_positive(arguments: object, *options: str) -> None:
    """Check options that count something.

    Raises:
        UsageError: one of them is below 1.
    """
    for option in options:
        value = getattr(arguments, option)
        if value is not None and value < 1:
            raise UsageError(f"--{option} must be >= 1, got {value}")


_VALUES: dict[object, str] = {str: "TEXT", int: "NUMBER", float: "NUMBER"}


class _Help(argparse.HelpFormatter):
    """One spelling for each option, and no empty defaults."""

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if action.const is True:  # a switch
            return action.option_strings[0]
        return f"{action.option_strings[0]} {_VALUES.get(action.type, 'true or false')}"

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        if action.required:
            return f"{text} (required)"
        return text if action.default in (None, False) else f"{text} (default: %(default)s)"


class Parser(HfArgumentParser):
    """HfArgumentParser with a short help and errors that name a remedy."""

    def error(self, message: str) -> NoReturn:
        """Raise instead of exiting: ``common.exits`` prints the error."""
        raise UsageError(f"{message}. Run {self.prog} --help for the options")

    def format_help(self) -> str:
        """Show the options of the example, then those of Trainer that matter here."""
        formatter = self.formatter_class(prog=self.prog)
        formatter.add_text(self.description)
        for dataclass_type in self.dataclass_types:
            names = [f.name for f in fields(dataclass_type) if f.init]
            if issubclass(dataclass_type, RunArguments):
                names = [name for name in RUN_OPTIONS if name in names]
            title = (dataclass_type.__doc__ or "").partition("\n")[0].partition(";")[0].rstrip(".")
            formatter.start_section(title)
            formatter.add_arguments([self._named(name) for name in names])
            formatter.end_section()
        formatter.add_text(
            "All other options of Transformers' TrainingArguments are accepted; options for "
            "training have no effect. Exit codes: 0 success, 1 failure, 2 usage error, 130 "
            "interrupted."
        )
        return formatter.format_help()

    def _named(self, name: str) -> argparse.Action:
        return next(action for action in self._actions if action.dest == name)


def parse(
    dataclass_types: tuple[Any, ...],
    description: str | None,
    arguments: Sequence[str] | None = None,
) -> tuple[Any, ...]:
    """Parse the command line.

    Args:
        dataclass_types: classes of options; the last one is a ``RunArguments``.
        description: what the example does, for ``--help``.
        arguments: the arguments, ``sys.argv[1:]`` by default.

    Returns:
        An instance of each class.

    Raises:
        UsageError: an option is unknown, or its value invalid.
        PipelineError: the pipeline is invalid.
    """
    parser = Parser(
        dataclass_types,
        description=description,
        prog=Path(sys.argv[0]).name,
        formatter_class=_Help,
        allow_abbrev=False,
    )
    try:
        *parsed, unknown = parser.parse_args_into_dataclasses(
            arguments, return_remaining_strings=True, look_for_args_file=False
        )
    except ValueError as error:  # from the checks of TrainingArguments
        raise UsageError(str(error)) from error
    if unknown:
        known = [option for action in parser._actions for option in action.option_strings]
        raise UsageError(
            f"unknown option {unknown[0]}{did_you_mean(unknown[0], known)} "
            f"Run {parser.prog} --help for the options"
        )
    run = parsed[-1]
    assert isinstance(run, RunArguments)
    if run.do_train:
        raise UsageError(
            "--do_train: this example only evaluates and predicts. Train with the example of "
            "Transformers, then pass its --output_dir as --model_name_or_path"
        )
    if not run.do_eval and not run.do_predict:
        raise UsageError("nothing to do. Pass --do_eval, --do_predict or both")
    if run.compare_with_eager and not run.changes_the_model:
        raise UsageError(
            "--compare_with_eager needs a pipeline to compare. Pass one, for example "
            "--jit_mode_eval or --cpuaccel_backends bettertransformer,jit"
        )
    return tuple(parsed)
