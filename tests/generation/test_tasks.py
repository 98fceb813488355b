"""Translation, summarization, texts of images: by pipelines where Transformers 5 still has them."""

from typing import Any

import pytest
import torch
import transformers
from PIL import Image

from tests.generation.encoder_decoders import IMAGE, IMAGE_TOKEN, accelerated
from tests.generation.test_pipelines import tokenizer

TEXTS = ["The house is wonderful.", "A much longer text, about which one could say less.", "Hm"]


def of_text() -> Any:
    """A tokenizer that pads on the right and ends each text, as those of encoders do."""
    made = tokenizer()
    made.padding_side = "right"
    made.eos_token, last = made.convert_ids_to_tokens([2, IMAGE_TOKEN])
    made.add_special_tokens({"additional_special_tokens": [last]})
    return made


def picture(seed: int) -> Any:
    pixels = torch.randint(256, (IMAGE, IMAGE, 3), generator=torch.Generator().manual_seed(seed))
    return Image.fromarray(pixels.to(torch.uint8).numpy())


def of_images() -> Any:
    return transformers.ViTImageProcessor(size={"height": IMAGE, "width": IMAGE})


TASKS: dict[str, tuple[str, dict[str, Any]]] = {
    "translation": ("marian", {"num_beams": 3, "bad_words_ids": [[0]]}),
    "translation into a language": ("m2m100", {"forced_bos_token_id": 17, "num_beams": 2}),
    "summarization": ("bart", {"num_beams": 2, "length_penalty": 2.0, "min_length": 6}),
    "text to text": ("t5", {"do_sample": False}),
}


@pytest.mark.parametrize("task", TASKS)
def test_texts(task: str) -> None:
    """The pipelines for these tasks are gone: tokens are made, generated and decoded."""
    name, call = TASKS[task]
    model, fast = accelerated(name)
    encoder = of_text()
    inputs = encoder(TEXTS, return_tensors="pt", padding=True)
    before = fast.report.calls
    found, expected = (
        encoder.batch_decode(
            m.generate(**inputs, max_new_tokens=12, no_repeat_ngram_size=2, **call)
        )
        for m in (fast, model)
    )
    assert found == expected
    assert len(set(found)) > 1
    assert fast.report.calls - before == {"optimized": 1}


@pytest.mark.parametrize("task", ["translation", "summarization", "text2text-generation"])
def test_pipelines_that_transformers_removed(task: str) -> None:
    model, fast = accelerated("t5")
    for each in (model, fast):
        with pytest.raises(KeyError, match=task):
            transformers.pipeline(task, model=each, tokenizer=of_text())


@pytest.mark.parametrize("name", ["blip", "florence2"])
def test_texts_of_images(name: str) -> None:
    model, fast = accelerated(name)
    processor = {"blip": captioning, "florence2": prompted}[name]()
    inputs = {"images": [picture(1)], "text": "a photo of"}
    call = {"max_new_tokens": 10, "do_sample": False, "no_repeat_ngram_size": 2}
    before = fast.report.calls
    found, expected = (
        transformers.pipeline("image-text-to-text", model=m, processor=processor)(
            **inputs, generate_kwargs=call
        )
        for m in (fast, model)
    )
    assert found == expected
    assert len(found[0]["generated_text"]) > 8
    assert fast.report.calls - before == {"optimized": 1}


def captioning() -> Any:
    size = {"height": IMAGE, "width": IMAGE}
    return transformers.BlipProcessor(transformers.BlipImageProcessor(size=size), of_text())


def prompted() -> Any:
    encoder = of_text()
    images = transformers.CLIPImageProcessor(
        size={"height": IMAGE, "width": IMAGE}, do_center_crop=False
    )
    images.image_seq_length = 17
    encoder.image_token_id = IMAGE_TOKEN
    encoder.image_token = encoder.convert_ids_to_tokens(IMAGE_TOKEN)
    return transformers.Florence2Processor(image_processor=images, tokenizer=encoder)


def test_lines_of_text() -> None:
    """No pipeline calls these models: pixels are made, generated and decoded."""
    model, fast = accelerated("trocr")
    processor = transformers.TrOCRProcessor(of_images(), of_text())
    inputs = processor(images=[picture(1), picture(2)], return_tensors="pt")
    before = fast.report.calls
    found, expected = (
        processor.batch_decode(m.generate(**inputs, max_new_tokens=12, no_repeat_ngram_size=2))
        for m in (fast, model)
    )
    assert found == expected
    assert len(found[0]) > 8
    assert fast.report.calls - before == {"optimized": 1}


def test_questions_about_documents() -> None:
    """The pipeline asks for attentions, which a stepper doesn't return."""
    model, fast = accelerated("donut")
    images = transformers.ViTImageProcessor(size={"height": IMAGE, "width": 2 * IMAGE})
    call = {"max_new_tokens": 12}
    before = fast.report.calls
    found, expected = (
        transformers.pipeline(
            "document-question-answering",
            model=m,
            tokenizer=of_text(),
            image_processor=images,
            **call,
        )(picture(1), "what?")
        for m in (fast, model)
    )
    assert found == expected
    assert set(fast.report.calls - before) == {"fallback:method"}
    assert "output_attentions" in fast.report.fallbacks["fallback:method"]
