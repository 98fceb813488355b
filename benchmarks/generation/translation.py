"""Compare backends with eager and CTranslate2 on translation, in one run, in turn.

    python -m venv peer && peer/bin/pip install ctranslate2 transformers torch
    python benchmarks/generation/translation.py --peer peer/bin/python [--model t5]

All translate 8 sentences of mixed length at once, with 4 beams and equal numbers of threads and of
new tokens, by a model of the shape of Opus-MT (Marian) or of T5-small with random weights: speeds
are compared, and no texts. Prints medians, and paired ratios.
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peer import running
from tokenizers import Tokenizer, models
from transformers import (
    MarianConfig,
    MarianMTModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

import cpuaccel
from cpuaccel.timing import Ratio, interleave

LENGTHS = (6, 9, 13, 17, 22, 28, 35, 44)
"""Tokens of the sentences."""

TOKENS = 32
"""New tokens of each translation."""

END, UNKNOWN = 0, 1
EAGER = "eager"
BACKENDS = ("onednn", "int8")
PEERS = {"CTranslate2 float32": "float32", "CTranslate2 int8": "int8"}
PAIRS = {"onednn": "CTranslate2 float32", "int8": "CTranslate2 int8"}
"""Which backend is compared with which computation of the peer."""

MARIAN: dict[str, Any] = {
    **{"vocab_size": 58101, "d_model": 512, "activation_function": "swish"},
    **{"encoder_layers": 6, "decoder_layers": 6, "encoder_ffn_dim": 2048, "decoder_ffn_dim": 2048},
    **{"encoder_attention_heads": 8, "decoder_attention_heads": 8, "scale_embedding": True},
    **{"max_position_embeddings": 512, "forced_eos_token_id": None},
    **{"pad_token_id": 58100, "decoder_start_token_id": 58100, "eos_token_id": END},
}

T5: dict[str, Any] = {
    **{"vocab_size": 32128, "d_model": 512, "d_kv": 64, "d_ff": 2048, "num_layers": 6},
    **{"num_heads": 8, "pad_token_id": 32100, "decoder_start_token_id": 32100},
    **{"eos_token_id": END},
}


def main() -> None:
    """Compare, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", required=True, help="Python of an environment with its packages")
    parser.add_argument("--model", choices=("marian", "t5"), default="marian")
    parser.add_argument("--beams", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.manual_seed(0)
    model: Any = (
        MarianMTModel(MarianConfig(**MARIAN))
        if options.model == "marian"
        else T5ForConditionalGeneration(T5Config(**T5))
    ).eval()
    rows = [torch.randint(2, 30000, (length,)) for length in LENGTHS]
    with tempfile.TemporaryDirectory() as folder:
        save(model, Path(folder) / "model")
        sentences = [[f"t{token}" for token in row.tolist()] for row in rows]
        (Path(folder) / "sentences.json").write_text(json.dumps(sentences))
        compare(model, rows, folder, options)


def save(model: Any, folder: Path) -> None:
    """Save a model, with a tokenizer whose tokens are numbers."""
    model.save_pretrained(folder)
    size, pad = model.config.vocab_size, model.config.pad_token_id
    special = {END: "</s>", UNKNOWN: "<unk>", pad: "<pad>"}
    vocabulary = {special.get(token, f"t{token}"): token for token in range(size)}
    PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>")),  # noqa: S106
        **{"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"},
    ).save_pretrained(folder)


def compare(model: Any, rows: list[torch.Tensor], folder: str, options: argparse.Namespace) -> None:
    """Translate in turn, and print the times."""
    pad = model.config.pad_token_id
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=pad)
    inputs = {"input_ids": ids, "attention_mask": ids.ne(pad).long()}
    optimized = {EAGER: model} | {n: cpuaccel.optimize(model, [n]) for n in BACKENDS}
    threads = torch.get_num_threads()
    with running(options.peer, "translation_peer.py", [folder, threads, TOKENS]) as peer:

        def ours(name: str) -> Callable[[], None]:
            def run() -> None:
                with torch.inference_mode():
                    tokens = optimized[name].generate(
                        **inputs,
                        num_beams=options.beams,
                        do_sample=False,
                        min_new_tokens=TOKENS,
                        max_new_tokens=TOKENS,
                    )
                assert tokens.shape == (len(rows), TOKENS + 1)

            return run

        def theirs(name: str) -> Callable[[], None]:
            def run() -> None:
                assert peer.ask(f"{PEERS[name]} {options.beams}") == [TOKENS] * len(rows)

            return run

        runs = {name: ours(name) for name in optimized} | {name: theirs(name) for name in PEERS}
        times = interleave(runs, rounds=options.rounds, warmup=1)
    print(f"{cpuaccel.host().processor}, {threads} threads, {options.model}, {options.beams} beams")
    for name in runs:
        over = (
            "" if name == EAGER else f", {Ratio.from_times(times[EAGER], times[name])} over eager"
        )
        print(f"{name:20} {float(np.median(times[name])):6.2f} s{over}")
    for name, other in PAIRS.items():
        print(f"{name} over {other}: {Ratio.from_times(times[other], times[name])}")
    print(optimized["onednn"].report)


if __name__ == "__main__":
    main()
