"""transformers.pipeline with an optimized model: the same results and the same log."""

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

transformers = pytest.importorskip("transformers", minversion="4.48")

from PIL import Image  # noqa: E402
from transformers.pipelines.pt_utils import KeyDataset  # noqa: E402

import cpuaccel  # noqa: E402
from tests.integrations.parts import QA, TEXTS, assert_close_results, letters_tokenizer  # noqa: E402
from tests.models import encoder  # noqa: E402
from tests.required import BF16, NATIVE, requires  # noqa: E402

BACKENDS = [["bettertransformer"], ["jit"], ["bettertransformer", "jit"]]

NO_QA = "question-answering" not in transformers.pipelines.SUPPORTED_TASKS
WITHOUT_QA = f"transformers {transformers.__version__} has no pipeline for question answering"

Messages = list[str]


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], Messages]]:
    """Return warnings and errors of transformers and cpuaccel since the previous call."""
    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_warning()
    transformers.logging.enable_propagation()

    def messages() -> Messages:
        found = [
            record.getMessage()
            for record in caplog.records
            if record.levelno >= logging.WARNING
            and record.name.partition(".")[0] in ("transformers", "cpuaccel")
            # Logged once per process, when tracing reads all attributes of a model.
            and not record.getMessage().startswith("`loss_type=None` was set")
        ]
        caplog.clear()
        return found

    yield messages
    transformers.logging.disable_propagation()
    transformers.logging.set_verbosity(verbosity)


def images() -> list[Image.Image]:
    random = np.random.default_rng(0)
    shapes = [(16, 16), (20, 31), (40, 16)]
    return [Image.fromarray(random.integers(0, 255, (*s, 3), dtype=np.uint8)) for s in shapes]


def sounds() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.standard_normal(samples).astype(np.float32) for samples in (800, 1600, 1200)]


def speech_parts(folder: Path) -> dict[str, Any]:
    letters = ["<pad>", "<s>", "</s>", "<unk>", "|", *"abcdefghijklmnopqrstuvwxyz'"]
    (folder / "vocab.json").write_text(json.dumps({c: i for i, c in enumerate(letters)}))
    return {
        "tokenizer": transformers.Wav2Vec2CTCTokenizer(str(folder / "vocab.json")),
        "feature_extractor": transformers.Wav2Vec2FeatureExtractor(return_attention_mask=True),
    }


class Case:
    """A task with a model, the pipeline's other arguments, and inputs."""

    def __init__(
        self,
        task: str,
        model: Callable[[], torch.nn.Module],
        parts: Callable[[Path], dict[str, Any]],
        inputs: Callable[[], list[Any]],
        **call: Any,
    ) -> None:
        self.task, self.model, self.parts, self.inputs, self.call = task, model, parts, inputs, call

    def cut(self, results: dict[str, Any]) -> dict[str, Any]:
        """Cut off features of padding, which backends may leave out."""
        if self.task != "feature-extraction":
            return results
        lengths = [len(features[0]) for features in results["one at a time"]]
        return {
            way: [[features[0][:length]] for features, length in zip(found, lengths, strict=True)]
            for way, found in results.items()
        }


def with_tokenizer(folder: Path) -> dict[str, Any]:
    return {"tokenizer": letters_tokenizer()}


def with_image_processor(folder: Path) -> dict[str, Any]:
    return {"image_processor": transformers.ViTImageProcessor(size={"height": 16, "width": 16})}


def texts() -> list[str]:
    return TEXTS


def masked_texts() -> list[str]:
    return [f"{text} [MASK]." for text in TEXTS]


CASES = [
    Case("text-classification", lambda: encoder("bert-text"), with_tokenizer, texts, top_k=None),
    Case("token-classification", lambda: encoder("roberta-token"), with_tokenizer, texts),
    Case("feature-extraction", lambda: encoder("albert"), with_tokenizer, texts),
    Case("fill-mask", lambda: encoder("bert-masked"), with_tokenizer, masked_texts, top_k=3),
    Case("image-classification", lambda: encoder("vit"), with_image_processor, images),
    Case("automatic-speech-recognition", lambda: encoder("wav2vec2"), speech_parts, sounds),
]


def run(pipe: Any, inputs: list[Any], call: dict[str, Any]) -> dict[str, object]:
    """Call the pipeline in every way that it supports."""
    return {
        "one at a time": [pipe(one, **call) for one in inputs],
        "a list": pipe(list(inputs), **call),
        "in batches": pipe(list(inputs), batch_size=2, **call),
        "from a generator": list(pipe((one for one in inputs), batch_size=3, **call)),
        "from a data set": list(
            pipe(KeyDataset([{"input": one} for one in inputs], "input"), batch_size=2, **call)
        ),
    }


@pytest.mark.parametrize("backends", BACKENDS, ids=",".join)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.task)
def test_results_and_log_match_the_original(
    case: Case, backends: list[str], tmp_path: Path, log: Callable[[], Messages]
) -> None:
    model, parts = case.model(), case.parts(tmp_path)
    log()
    original = transformers.pipeline(case.task, model=model, **parts)
    expected = run(original, case.inputs(), case.call)
    said = log()
    fast = cpuaccel.optimize(model, backends, strict=True)
    pipe = transformers.pipeline(case.task, model=fast, **parts)
    found = run(pipe, case.inputs(), case.call)
    if case.task == "automatic-speech-recognition" and "bettertransformer" in backends:
        # The original decodes padding, too. Without padding, a batch decodes like single inputs.
        expected = dict.fromkeys(expected, expected["one at a time"])
    assert_close_results(case.cut(found), case.cut(expected))
    assert log() == said
    assert not [message for message in said if "not supported" in message]
    assert fast.report.applied == tuple(backends)
    assert set(fast.report.calls) == {"optimized"}, fast.report


@requires(*NATIVE)  # the layers of optimum set padding to zero
def test_padding_adds_no_letters_to_speech(tmp_path: Path) -> None:
    model, parts = encoder("wav2vec2"), speech_parts(tmp_path)
    with torch.no_grad():  # the head turns a state of zeros into a letter
        model.lm_head.bias.copy_(1e-3 * (torch.arange(len(model.lm_head.bias)) == 9))
    original = transformers.pipeline("automatic-speech-recognition", model=model, **parts)
    fast = cpuaccel.optimize(model, ["bettertransformer"], strict=True)
    pipe = transformers.pipeline("automatic-speech-recognition", model=fast, **parts)
    expected = [original(sound) for sound in sounds()]
    assert len({result["text"] for result in expected}) > 1
    assert pipe(sounds(), batch_size=3) == expected


@pytest.mark.parametrize("backends", BACKENDS, ids=",".join)
def test_speech_in_chunks(backends: list[str], tmp_path: Path) -> None:
    model, parts = encoder("wav2vec2"), speech_parts(tmp_path)
    call = {"chunk_length_s": 0.04, "stride_length_s": 0.01, "return_timestamps": "char"}
    original = transformers.pipeline("automatic-speech-recognition", model=model, **parts)
    fast = cpuaccel.optimize(model, backends, strict=True)
    pipe = transformers.pipeline("automatic-speech-recognition", model=fast, **parts)
    expected = original(sounds(), **call)
    assert_close_results(pipe(sounds(), **call), expected)
    batched = pipe(sounds(), batch_size=3, **call)
    if "bettertransformer" in backends:  # padding repeats the last letter, which then lasts longer
        assert [result["text"] for result in batched] == [result["text"] for result in expected]
    else:
        assert_close_results(batched, original(sounds(), batch_size=3, **call))
    assert set(fast.report.calls) == {"optimized"}, fast.report


@pytest.mark.skipif(NO_QA, reason=WITHOUT_QA)
@pytest.mark.skipif(not QA.is_dir(), reason=f"no trained model in {QA.parent.name}/{QA.name}")
# From transformers 4.48 with numpy 2.
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")
@pytest.mark.parametrize("backends", BACKENDS, ids=",".join)
def test_question_answering_with_a_trained_model(
    backends: list[str], log: Callable[[], Messages]
) -> None:
    model = transformers.AutoModelForQuestionAnswering.from_pretrained(QA / "model")
    tokenizer = transformers.AutoTokenizer.from_pretrained(QA / "model")
    context = (
        "The Amazon rainforest covers most of the Amazon basin of South America. This basin "
        "encompasses seven million square kilometres, of which five and a half million are covered "
        "by the rainforest. The majority of the forest is contained within Brazil."
    )
    asked = {
        "question": [
            "Which continent is the Amazon basin on?",
            "Which country contains the majority of the forest?",
            "How large is the basin?",
        ],
        "context": [context, context, context[72:180]],
    }
    call = {"max_seq_len": 64, "doc_stride": 16, "top_k": 3}
    log()
    original = transformers.pipeline("question-answering", model=model, tokenizer=tokenizer)
    expected = [original(**asked, batch_size=size, **call) for size in (1, 4)]
    said = log()
    fast = cpuaccel.optimize(model, backends, strict=True)
    pipe = transformers.pipeline("question-answering", model=fast, tokenizer=tokenizer)
    assert_close_results([pipe(**asked, batch_size=size, **call) for size in (1, 4)], expected)
    assert log() == said
    assert set(fast.report.calls) == {"optimized"}, fast.report


@requires(BF16)
def test_a_pipeline_in_bfloat16(tmp_path: Path) -> None:
    model, parts = encoder("bert-text"), with_tokenizer(tmp_path)
    expected = transformers.pipeline("text-classification", model=model, top_k=None, **parts)(TEXTS)
    fast = cpuaccel.optimize(model, ["jit"], dtype="bfloat16", strict=True)
    pipe = transformers.pipeline(
        "text-classification", model=fast, top_k=None, device="cpu", **parts
    )
    for mine, theirs in zip(pipe(TEXTS), expected, strict=True):
        assert {s["label"]: s["score"] for s in mine} == pytest.approx(
            {s["label"]: s["score"] for s in theirs}, abs=0.05
        )
    assert fast.dtype == torch.float32
    assert len(fast.report.variants) == 1


def test_an_optimized_model_is_an_instance_of_the_originals_class() -> None:
    model = encoder("bert-text")
    fast = cpuaccel.optimize(model, ["jit"])
    assert isinstance(fast, transformers.PreTrainedModel)
    assert isinstance(fast, cpuaccel.OptimizedModel)
    assert fast.__class__ is type(model)
    assert type(fast) is cpuaccel.OptimizedModel
    # Trainer uses this to find the columns with labels.
    assert transformers.utils.generic.find_labels(fast.__class__) == ["labels"]
    assert repr(fast).startswith("OptimizedModel(\n  (original): BertForSequenceClassification(")
