"""The options of text classification."""

from dataclasses import dataclass, field

from common.arguments import DataArguments, require_positive
from common.exits import UsageError
from cpuaccel.errors import did_you_mean
from text_classification.tasks import HUB_NAME, TASKS, Task


@dataclass
class GlueArguments(DataArguments):
    """Data and metrics."""

    task_name: str | None = field(
        default=None,
        metadata={
            "help": f"A task of GLUE: {', '.join(TASKS)}. It selects the columns, the metrics and, "
            "without a file or a dataset, the data of GLUE on the hub."
        },
    )
    max_seq_length: int = field(
        default=128, metadata={"help": "Most tokens of a sentence or pair; the rest is cut off."}
    )

    def __post_init__(self) -> None:
        """Check what argparse can't, and select the data of the task.

        Raises:
            UsageError: the task is unknown, or a number is invalid.
        """
        require_positive(self, "max_seq_length")
        if self.task_name is None:
            return
        name = self.task_name.lower()
        if name not in TASKS:
            raise UsageError(
                f"unknown --task_name {self.task_name}{did_you_mean(name, TASKS)} "
                f"Available: {', '.join(TASKS)}"
            )
        if self.validation_file is None and self.test_file is None:
            self.dataset_name = self.dataset_name or HUB_NAME
            self.dataset_config_name = self.dataset_config_name or name

    @property
    def task(self) -> Task | None:
        """The task, if one is named."""
        return None if self.task_name is None else TASKS[self.task_name.lower()]
