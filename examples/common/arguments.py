"""The options that the examples share, and how they are read."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NoReturn

from transformers import HfArgumentParser

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
    "no_cuda",
    "disable_tqdm",
)
"""What ``--help`` tells of the hundred and more options that Trainer takes."""


@dataclass
class ModelArguments:
    """Which model."""

    model_name_or_path: str = field(
        metadata={"help": "A folder written by save_pretrained, or a model's name on the hub."}
    )
    config_name: str | None = field(
        default=None, metadata={"help": "A config that is kept elsewhere than the model."}
    )
    tokenizer_name: str | None = field(
        default=None,
        metadata={"help": "A tokenizer or processor that is kept elsewhere than the model."},
    )
    model_revision: str = field(
        default="main", metadata={"help": "The model's branch, tag or commit on the hub."}
    )
    cache_dir: str | None = field(
        default=None, metadata={"help": "Where to keep what comes from the hub."}
    )
    token: str | None = field(
        default=None, metadata={"help": "The token for a private model or dataset on the hub."}
    )
    trust_remote_code: bool = field(
        default=False, metadata={"help": "Run the code that comes with a model from the hub."}
    )


@dataclass
class DataArguments:
    """Which data; examples add their own."""

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
        default=None, metadata={"help": "Evaluate on the first so many only."}
    )
    max_predict_samples: int | None = field(
        default=None, metadata={"help": "Predict the first so many only."}
    )
    preprocessing_num_workers: int | None = field(
        default=None, metadata={"help": "Processes that prepare the data."}
    )
    overwrite_cache: bool = field(
        default=False, metadata={"help": "Fetch a dataset from the hub anew."}
    )


@dataclass
class RunArguments(CpuaccelArguments):
    """How to run it: all of Trainer's options, cpuaccel's and these."""

    output_dir: str = field(metadata={"help": "The folder for results."})
    do_eval: bool = field(default=False, metadata={"help": "Evaluate on the validation data."})
    do_predict: bool = field(default=False, metadata={"help": "Predict the test data."})
    per_device_eval_batch_size: int = field(
        default=16, metadata={"help": "How many to compute at a time."}
    )
    overwrite_output_dir: bool = field(
        default=False,
        metadata={"help": "Start afresh, where an interrupted run would otherwise go on."},
    )
    dataloader_pin_memory: bool = field(
        default=False, metadata={"help": "Of use with an accelerator only."}
    )
    compare_with_eager: bool = field(
        default=False,
        metadata={"help": "Run the model as it was loaded too, in turn, and tell the speed-up."},
    )

    @property
    def changes_the_model(self) -> bool:
        """Whether anything but the model as it was loaded is asked for."""
        return self.inference_pipeline is not None or self.bf16 or self.bf16_full_eval


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
    """One spelling of each option, and only defaults that say something."""

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if action.const is True:  # a switch
            return action.option_strings[0]
        return f"{action.option_strings[0]} {_VALUES.get(action.type, 'true or false')}"

    def _get_help_string(self, action: argparse.Action) -> str:
        told = action.help or ""
        if action.required:
            return f"{told} (required)"
        return told if action.default in (None, False) else f"{told} (default: %(default)s)"


class Parser(HfArgumentParser):
    """HfArgumentParser, with a help that can be read and errors that say what to do."""

    def error(self, message: str) -> NoReturn:
        """Leave it to ``common.exits`` how mistakes are told."""
        raise UsageError(f"{message}. Run {self.prog} --help for what there is")

    def format_help(self) -> str:
        """The example's own options first, then those of Trainer's that matter here."""
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
            "All other options of Transformers' TrainingArguments are taken too; those that steer "
            "training change nothing here. Exit codes: 0 done, 1 failed, 2 asked wrongly, 130 "
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
    """Read the command line.

    Args:
        dataclass_types: what to read it into; the last one is a ``RunArguments``.
        description: what the example does, for ``--help``.
        arguments: what follows the script's name, by default the process's own.

    Returns:
        One of each type.

    Raises:
        UsageError: an option that there is not, or a value that can't be right.
        PipelineError: the pipeline can't be right.
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
    except ValueError as error:  # out of TrainingArguments' own checks
        raise UsageError(str(error)) from error
    if unknown:
        known = [option for action in parser._actions for option in action.option_strings]
        raise UsageError(
            f"{unknown[0]} was asked for, but there is no such option"
            f"{did_you_mean(unknown[0], known)} Run {parser.prog} --help for what there is"
        )
    run = parsed[-1]
    assert isinstance(run, RunArguments)
    if run.do_train:
        raise UsageError(
            "--do_train was asked for, but this example only evaluates and predicts. Train with "
            "Transformers' own example, and pass its --output_dir here as --model_name_or_path"
        )
    if not run.do_eval and not run.do_predict:
        raise UsageError(
            "neither --do_eval nor --do_predict was asked for, so there is nothing to do. Pass one"
        )
    if run.compare_with_eager and not run.changes_the_model:
        raise UsageError(
            "--compare_with_eager was asked for, but nothing to compare with. Pass a pipeline, for "
            "instance --jit_mode_eval or --cpuaccel_backends bettertransformer,jit"
        )
    return tuple(parsed)
