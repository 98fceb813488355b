"""The options that only text classification has."""

from dataclasses import dataclass, field

from common.arguments import DataArguments, require_positive
from common.exits import UsageError
from cpuaccel.errors import did_you_mean
from text_classification.tasks import HUB_NAME, TASKS, Task


@dataclass
class GlueArguments(DataArguments):
    """Which data, and how it is read and scored."""

    task_name: str | None = field(
        default=None,
        metadata={
            "help": f"One of GLUE's tasks: {', '.join(TASKS)}. Chooses the columns and metrics, "
            "and unless a file or a dataset is named, the data: GLUE's on the hub."
        },
    )
    max_seq_length: int = field(
        default=128, metadata={"help": "Tokens to read of a sentence or of a pair, at most."}
    )

    def __post_init__(self) -> None:
        """Check what argparse can't, and find the task's data.

        Raises:
            UsageError: there is no such task, or a number can't be right.
        """
        require_positive(self, "max_seq_length")
        if self.task_name is None:
            return
        name = self.task_name.lower()
        if name not in TASKS:
            raise UsageError(
                f"--task_name {self.task_name} was asked for, but GLUE has no such task"
                f"{did_you_mean(name, TASKS)} There are: {', '.join(TASKS)}"
            )
        if self.validation_file is None and self.test_file is None:
            self.dataset_name = self.dataset_name or HUB_NAME
            self.dataset_config_name = self.dataset_config_name or name

    @property
    def task(self) -> Task | None:
        """The task that was asked for."""
        return None if self.task_name is None else TASKS[self.task_name.lower()]
