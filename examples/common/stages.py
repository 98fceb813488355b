"""The course of an example: its beginning, and each stage of it."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import datasets
from datasets import Dataset
from transformers import PreTrainedModel

from common.arguments import DataArguments, ModelArguments, RunArguments, parse
from common.data import FILES, check_source
from common.files import make_output_dir
from common.fingerprint import fingerprint
from common.partial import PartialResults
from common.prediction import Array, Collator, Reduce, predict
from common.summary import summarize

Outputs = tuple[Array, ...]
Score = Callable[[Outputs], Mapping[str, float]]
Write = Callable[[Outputs], None]

DataT = TypeVar("DataT", bound=DataArguments)


def begin(
    of_data: type[DataT], description: str | None, options: Mapping[str, str] = FILES
) -> tuple[ModelArguments, DataT, RunArguments, list[str]]:
    """Read the command line, and make the folder for results.

    Args:
        of_data: the example's own options.
        description: what the example does, for ``--help``.
        options: for each stage the option that names local data.

    Returns:
        Which model, which data, how to run it, and the stages asked for: ``eval``, ``predict``.

    Raises:
        UsageError: the command line can't be right.
        PipelineError: the pipeline can't be right.
        ExampleError: the folder can't be made.
    """
    parsed: tuple[ModelArguments, DataT, RunArguments] = parse(
        (ModelArguments, of_data, RunArguments), description
    )
    model, data, run = parsed
    stages = [stage for stage in FILES if getattr(run, f"do_{stage}")]
    check_source(data, stages, options)
    make_output_dir(Path(run.output_dir))
    datasets.disable_progress_bars()
    return model, data, run, stages


def run_stage(
    stage: str,
    model: PreTrainedModel,
    inputs: Dataset,
    collator: Collator,
    run: RunArguments,
    *,
    score: Score | None = None,
    write: Write | None = None,
    lengths: Sequence[int] | None = None,
    reduce: Reduce | None = None,
    depends_on: object = None,
    unit: str = "example",
    **counts: int,
) -> None:
    """Predict a dataset, score the predictions, write them, and sum up.

    What is finished is kept until all of this is done.

    Args:
        stage: ``eval`` or ``predict``; what the names of all figures begin with.
        model: in eval mode.
        inputs: what the model is called with, without labels.
        collator: makes a batch of rows.
        run: how to run it.
        score: gives the metrics for a model's outputs, where the right answers are known.
        write: writes the outputs of the run that was asked for, where they are wanted.
        lengths: how long each row is, to put rows of like length into a batch.
        reduce: see ``common.prediction.predict``.
        depends_on: what the outputs depend on beside the model, the inputs and the options.
        unit: what a row is called.
        counts: other counts to tell in the summary.
    """
    output_dir = Path(run.output_dir)
    with PartialResults(
        output_dir / f"{stage}_partial",
        fingerprint(model, inputs, run, depends_on=depends_on),
        afresh=run.overwrite_output_dir,
    ) as partial:
        predicted = predict(
            model, inputs, collator, run, partial, lengths=lengths, reduce=reduce, unit=unit
        )
        metrics = {
            name: {} if score is None else score(predictions.outputs)
            for name, predictions in predicted.runs.items()
        }
        if write is not None:
            write(predicted.runs[predicted.main].outputs)
        summarize(stage, predicted, metrics, output_dir, unit=unit, **counts)
