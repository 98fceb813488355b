"""Rows are batched by length, predicted once, and returned in order."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("datasets", reason="the examples need the library datasets")

import datasets
from transformers import AutoModelForQuestionAnswering, DataCollatorWithPadding

from common.arguments import GeneratingRunArguments, RunArguments
from common.fingerprint import fingerprint
from common.partial import PartialResults
from common.prediction import predict


def rows(lengths: list[int]) -> datasets.Dataset:
    chance = np.random.default_rng(0)
    ids = [chance.integers(5, 40, size=length).tolist() for length in lengths]
    return datasets.Dataset.from_dict(
        {"input_ids": ids, "attention_mask": [[1] * length for length in lengths]}
    )


def test_outputs_are_in_the_order_of_the_rows(tmp_path: Path, tiny_qa_model: Path) -> None:
    import torch
    from transformers import AutoTokenizer

    lengths = [3, 9, 4, 12, 7, 5, 11, 6, 8, 10, 3]
    dataset = rows(lengths)
    dataset = dataset.map(lambda row: {"input_ids": [each % 18 for each in row["input_ids"]]})
    model = AutoModelForQuestionAnswering.from_pretrained(tiny_qa_model)
    run = RunArguments(str(tmp_path), per_device_eval_batch_size=2, use_cpu=True, report_to=[])
    run.disable_tqdm = True
    with PartialResults(tmp_path / "partial", {}, restart=True) as partial:
        predicted = predict(
            model,
            dataset,
            DataCollatorWithPadding(AutoTokenizer.from_pretrained(tiny_qa_model)),
            run,
            partial,
            lengths=lengths,
        )
    assert (predicted.main, predicted.samples, predicted.report) == ("eager", 11, None)
    outputs = predicted.runs["eager"].outputs
    for row, (length, inputs) in enumerate(zip(lengths, dataset)):
        with torch.no_grad():
            alone = model(**{name: torch.tensor([value]) for name, value in inputs.items()})
        for output, wanted in zip(outputs, (alone.start_logits, alone.end_logits)):
            np.testing.assert_allclose(output[row, :length], wanted[0].numpy(), atol=1e-5)


def test_a_fingerprint_names_what_changed(tmp_path: Path, tiny_qa_model: Path) -> None:
    import torch

    model = AutoModelForQuestionAnswering.from_pretrained(tiny_qa_model)

    def changed(**others: Any) -> list[str]:
        now = {"model": model, "dataset": rows([3, 4]), "run": run(), **others}
        found = fingerprint(now.pop("model"), now.pop("dataset"), now.pop("run"), **now)
        return [name for name, digest in found.items() if digest != before[name]]

    def run(**options: Any) -> RunArguments:
        return RunArguments(str(tmp_path), use_cpu=True, report_to=[], **options)

    before = fingerprint(model, rows([3, 4]), run())
    assert changed() == []
    assert changed(dataset=rows([3, 4, 5]).select([0, 1])) == []
    assert changed(dataset=rows([3, 5])) == ["data"]
    assert changed(run=run(jit_mode_eval=True)) == ["options"]
    assert changed(run=run(per_device_eval_batch_size=3)) == ["options"]
    assert changed(padded=True) == ["options"]
    with torch.no_grad():
        next(model.parameters()).view(-1)[-1] += 1
    assert changed() == ["model"]


def test_a_fingerprint_names_changed_options_of_generate(
    tmp_path: Path, tiny_qa_model: Path
) -> None:
    model = AutoModelForQuestionAnswering.from_pretrained(tiny_qa_model)

    def options(generation: list[object], **options: Any) -> str:
        run = GeneratingRunArguments(str(tmp_path), use_cpu=True, report_to=[], **options)
        return fingerprint(model, rows([3, 4]), run, generation=generation)["options"]

    before = options([{"language": "en"}, "{}"])
    assert options([{"language": "en"}, "{}"]) == before
    assert options([{"language": "de"}, "{}"]) != before
    assert options([{"language": "en"}, '{"num_beams": 2}']) != before
    assert options([{"language": "en"}, "{}"], generation_num_beams=2) != before
    assert options([{"language": "en"}, "{}"], generation_max_length=9) != before
