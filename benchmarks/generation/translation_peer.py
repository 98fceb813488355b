"""Translate with CTranslate2, all sentences for each line on standard input; see translation.py.

    python translation_peer.py FOLDER THREADS TOKENS

Each line has a type to compute in and a number of beams. Answers it with one line of JSON: how many
tokens each translation has. It runs in an environment of its own.
"""

import json
import os
import sys
from pathlib import Path

import ctranslate2
from ctranslate2.converters import TransformersConverter


def main() -> None:
    """Convert the model, and serve until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # converters print
    folder, threads, tokens = sys.argv[1:]
    converted = str(Path(folder) / "converted")
    TransformersConverter(str(Path(folder) / "model")).convert(converted)
    sentences = json.loads((Path(folder) / "sentences.json").read_text())
    translators: dict[str, ctranslate2.Translator] = {}
    for line in sys.stdin:
        kind, beams = line.split()
        if kind not in translators:
            translators[kind] = ctranslate2.Translator(
                converted, compute_type=kind, intra_threads=int(threads), inter_threads=1
            )
        results = translators[kind].translate_batch(
            sentences,
            beam_size=int(beams),
            min_decoding_length=int(tokens),
            max_decoding_length=int(tokens),
        )
        print(json.dumps([len(one.hypotheses[0]) for one in results]), file=answers, flush=True)


if __name__ == "__main__":
    main()
