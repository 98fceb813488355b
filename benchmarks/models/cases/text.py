"""Transformers that read text."""

from collections.abc import Callable
from typing import Any

import torch
import transformers

from cases.case import LAYERS, T5, Case

SMALL: dict[str, Any] = {**LAYERS, "vocab_size": 300, "pad_token_id": 0}


def tokens(rows: int, length: int, padding: int = 0) -> dict[str, torch.Tensor]:
    """Random tokens, the last row with padding on the right."""
    ids = torch.randint(5, 300, (rows, length))
    mask = torch.ones_like(ids)
    if padding:
        ids[-1, -padding:] = mask[-1, -padding:] = 0
    return {"input_ids": ids, "attention_mask": mask}


def _read(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    with torch.no_grad():
        hidden: torch.Tensor = model(**inputs)[0]
    # What stands at padding is not compared: no user reads it.
    return hidden[inputs["attention_mask"].bool()] if hidden.dim() == 3 else hidden


CALLS = [
    lambda model: _read(model, tokens(2, 12, 5)),
    lambda model: _read(model, tokens(2, 12)),
    lambda model: _read(model, tokens(1, 7)),
    lambda model: _read(model, tokens(4, 33, 30)),
    lambda model: _read(model, tokens(3, 50, 1)),
]


def _case(name: str, make: Callable[[], torch.nn.Module]) -> Case:
    return Case("transformers", name, lambda: make().eval(), CALLS)


CASES = [
    _case("BERT", lambda: transformers.BertModel(transformers.BertConfig(**SMALL))),
    _case("RoBERTa", lambda: transformers.RobertaModel(transformers.RobertaConfig(**SMALL))),
    _case(
        "DeBERTa-v2",
        lambda: transformers.DebertaV2Model(
            transformers.DebertaV2Config(
                **SMALL,
                relative_attention=True,
                pos_att_type=["p2c", "c2p"],
                position_buckets=16,
                share_att_key=True,
                norm_rel_ebd="layer_norm",
            )
        ),
    ),
    _case(
        "T5, encoder",
        lambda: transformers.T5EncoderModel(transformers.T5Config(**T5, vocab_size=300)),
    ),
    _case(
        "Llama without cache",
        lambda: transformers.LlamaModel(
            transformers.LlamaConfig(**SMALL, num_key_value_heads=2, use_cache=False)
        ),
    ),
]
