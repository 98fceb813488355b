"""Evaluate an image-classification model, optionally optimized by cpuaccel.

Reads folders of images or a dataset. With --dataloader_num_workers, worker processes prepare the
images.
"""

import functools
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoImageProcessor, AutoModelForImageClassification, PreTrainedModel

from common.arguments import RunArguments
from common.files import write_tsv
from common.fingerprint import of_files
from common.labels import Labels
from common.models import load_model, load_processor
from common.stages import Outputs, Score, Write, begin, run_stage
from image_classification.arguments import FOLDERS, ImageArguments
from image_classification.images import load_images, read_image
from image_classification.metrics import score


def evaluate() -> None:
    """Evaluate with ``--do_eval``, predict with ``--do_predict``."""
    model_arguments, data, run, stages = begin(ImageArguments, __doc__, FOLDERS)
    # The processor makes the inputs from a batch; they are not columns of the data.
    run.remove_unused_columns = False
    loaded = {stage: load_images(data, model_arguments, stage) for stage in stages}
    processor = load_processor(AutoImageProcessor, model_arguments)
    model = load_model(AutoModelForImageClassification, model_arguments)
    for stage, (images, origin) in loaded.items():
        _run_stage(stage, images, origin, model, processor, run)


def _run_stage(
    stage: str,
    images: Dataset,
    origin: str,
    model: PreTrainedModel,
    processor: Any,
    run: RunArguments,
) -> None:
    labels = Labels(model.config, images, "label")
    evaluated = stage == "eval"
    inputs = images.select_columns("image")
    run_stage(
        stage,
        model,
        inputs,
        functools.partial(_collate, processor=processor),
        run,
        score=_scorer(images, origin, labels) if evaluated else None,
        write=None if evaluated else _writer(images, labels, Path(run.output_dir)),
        depends_on=[processor.to_json_string(), of_files(s["path"] for s in inputs["image"])],
        unit="image",
    )


def _collate(rows: list[dict[str, Any]], processor: Any) -> dict[str, torch.Tensor]:
    images = [read_image(row["image"]) for row in rows]
    return {"pixel_values": processor(images, return_tensors="pt")["pixel_values"]}


def _scorer(images: Dataset, origin: str, labels: Labels) -> Score:
    known = labels.numbers(images["label"], origin)
    return lambda outputs: score(outputs[0], known)


def _writer(images: Dataset, labels: Labels, output_dir: Path) -> Write:
    def write(outputs: Outputs) -> None:
        write_tsv(
            output_dir / "predictions.tsv",
            {
                "image": [source["path"] or row for row, source in enumerate(images["image"])],
                "prediction": [labels.names[number] for number in outputs[0].argmax(axis=1)],
            },
        )

    return write
