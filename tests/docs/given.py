"""The names that the pages take for granted, such as ``model`` and ``batch``."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import transformers

import cpuaccel
from tests.docs.checkpoints import recording
from tests.integrations.parts import TEXTS, letters_tokenizer
from tests.models import encoder

Names = dict[str, Any]


def _text() -> Names:
    mask = torch.ones(4, 16, dtype=torch.long)
    mask[2:, 6:] = 0
    batch = {"input_ids": torch.randint(5, 60, mask.shape), "attention_mask": mask}
    return {"cpuaccel": cpuaccel, "torch": torch, "model": encoder("bert"), "batch": batch}


def _decoder() -> Names:
    name = "HuggingFaceTB/SmolLM2-135M-Instruct"  # see CHECKPOINTS
    return {
        "model": transformers.AutoModelForCausalLM.from_pretrained(name),
        "tokenizer": transformers.AutoTokenizer.from_pretrained(name),
        "prompt": "w3 w14 w15",
    }


def _generation() -> Names:
    return {
        **_text(),
        **_decoder(),
        **_speech(),
        "transformers": transformers,
        "AutoModelForCausalLM": transformers.AutoModelForCausalLM,
        "recording": recording(),
    }


def _integrations() -> Names:
    from sentence_transformers import SentenceTransformer

    rows = [
        {"input_ids": [2, 9, 8, 3], "attention_mask": [1, 1, 1, 1], "labels": number % 2}
        for number in range(4)
    ]
    return {
        **_text(),
        "model": encoder("bert-text"),
        "dataset": rows,
        "classifier": encoder("bert-text"),
        "tokenizer": letters_tokenizer(),
        "texts": TEXTS,
        "embedder": SentenceTransformer("sentence-transformers/all-MiniLM-L6-v2", device="cpu"),
    }


def _int8() -> Names:
    names = _text()
    return {**names, "batches": [names["batch"]], "f1": lambda model: 0.0}


def _tuning() -> Names:
    names = {**_text(), "model": encoder("bert-text", num_hidden_layers=1)}
    batches = [names["batch"]]
    labels = torch.tensor([0, 1, 0, 1])
    return {**names, **_tokens(), **_speech(), "batches": batches, "labels": labels}


def _speech() -> Names:
    name = "openai/whisper-base"
    processor = transformers.AutoProcessor.from_pretrained(name)
    sound = recording()
    features = processor(sound["raw"], sampling_rate=16000, return_tensors="pt").input_features
    return {
        "whisper": transformers.AutoModelForSpeechSeq2Seq.from_pretrained(name).eval(),
        "processor": processor,
        "recordings": [features],
        "transcripts": ["what was said"],
    }


def _tokens() -> Names:
    decoder = _decoder()
    return {"decoder": decoder["model"], "tokenizer": decoder["tokenizer"], "prompt": "w3 w14"}


def _scale() -> Names:
    """Also writes the file that a page reads, into the current folder."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"id": range(len(TEXTS)), "text": TEXTS}), "texts.parquet")
    return {"texts": TEXTS, "encoder": encoder("bert")}


GIVEN: Mapping[str, Callable[[], Names]] = {
    "README.md": dict,
    "docs/tutorial.md": dict,
    "docs/how_to/speech.md": lambda: {"recording": recording()},
    "docs/generation.md": _generation,
    "docs/int8.md": _int8,
    "docs/integrations.md": _integrations,
    "docs/scale.md": _scale,
    "docs/tuning.md": _tuning,
}


def names_for(page: str) -> Names:
    """Make the names for a page, by its path in the repository."""
    return GIVEN.get(page, _text)()
