"""The steps that all examples share: the start, and each stage."""

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
from common.generation import Generation
from common.partial import PartialResults
from common.prediction import Array, Collator, Reduce, predict
from common.summary import summarize

Outputs = tuple[Array, ...]
Score = Callable[[Outputs], Mapping[str, float]]
Write = Callable[[Outputs], None]

DataT = TypeVar("DataT", bound=DataArguments)


def begin(
    data_type: type[DataT],
    description: str | None,
    options: Mapping[str, str] = FILES,
    run_type: type[RunArguments] = RunArguments,
) -> tuple[ModelArguments, DataT, RunArguments, list[str]]:
    """Parse the command line and make the folder for results.

    Args:
        data_type: the class of the example's options.
        description: what the example does, for ``--help``.
        options: the option that names local data, for each stage.
        run_type: the class of the options of the run.

    Returns:
        The options of the model, the data and the run, and the stages: ``eval``, ``predict``.

    Raises:
        UsageError: the command line is invalid.
        PipelineError: the pipeline is invalid.
        ExampleError: the folder can't be made.
    """
    parsed: tuple[ModelArguments, DataT, RunArguments] = parse(
        (ModelArguments, data_type, run_type), description
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
    generation: Generation | None = None,
    depends_on: object = None,
    unit: str = "example",
    audio_seconds: float | None = None,
    **counts: int,
) -> None:
    """Predict a dataset, score and write the predictions, and print a summary.

    Finished chunks are kept until all of this is done.

    Args:
        stage: ``eval`` or ``predict``, the prefix of the names of all results.
        model: in eval mode.
        inputs: inputs of the model, without labels.
        collator: makes a batch of rows.
        run: options of the run.
        score: computes the metrics of the outputs, where labels are known.
        write: writes the outputs of the main run.
        lengths: length of each row, to batch rows of similar length.
        reduce: see ``common.prediction.predict``.
        generation: see ``common.prediction.predict``.
        depends_on: what the outputs depend on besides the model, the inputs and the options.
        unit: noun for a row.
        audio_seconds: duration of all recordings, for the real-time factor; None for other data.
        counts: further counts for the summary.
    """
    output_dir = Path(run.output_dir)
    with PartialResults(
        output_dir / f"{stage}_partial",
        fingerprint(
            model,
            inputs,
            run,
            depends_on=depends_on,
            **({} if generation is None else {"generation": generation.depends_on}),
        ),
        restart=run.overwrite_output_dir,
    ) as partial:
        predicted = predict(
            model,
            inputs,
            collator,
            run,
            partial,
            lengths=lengths,
            reduce=reduce,
            generation=generation,
            unit=unit,
        )
        metrics = {
            name: {} if score is None else {**score(predictions.outputs)}
            for name, predictions in predicted.runs.items()
        }
        if audio_seconds is not None:
            counts["audio_seconds"] = round(audio_seconds)
            for name, predictions in predicted.runs.items():
                factor = sum(predictions.seconds) / audio_seconds
                metrics[name]["real_time_factor"] = round(factor, 6)
        if write is not None:
            write(predicted.runs[predicted.main].outputs)
        summarize(stage, predicted, metrics, output_dir, unit=unit, **counts)
