"""Transcribe with CTranslate2, all recordings for each line on standard input; see speech.py.

    python ctranslate2_peer.py MODEL_FOLDER FOLDER THREADS

Each line has a type to compute in, a number of beams and a number of new tokens (0: until the end
of the text). Answers it with one line of JSON: the tokens of each transcript. It runs in an
environment of its own.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
from ctranslate2.converters import TransformersConverter


def main() -> None:
    """Convert the model, and serve until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # converters print
    source, folder, threads = sys.argv[1:]
    converted = str(Path(folder) / "converted")
    TransformersConverter(source).convert(converted)
    features = np.load(Path(folder) / "features.npy", allow_pickle=False)
    start = json.loads((Path(source) / "generation_config.json").read_text())
    prompt = [start["decoder_start_token_id"], start["no_timestamps_token_id"]]
    models: dict[str, ctranslate2.models.Whisper] = {}
    for line in sys.stdin:
        kind, beams, tokens = line.split()
        if kind not in models:
            models[kind] = ctranslate2.models.Whisper(
                converted, compute_type=kind, intra_threads=int(threads), inter_threads=1
            )
        length: dict[str, Any] = {}
        if int(tokens):
            end = start["eos_token_id"]
            length = {"max_length": len(prompt) + int(tokens), "suppress_tokens": [-1, end]}
        transcripts = []
        for one in features:
            view = ctranslate2.StorageView.from_array(np.ascontiguousarray(one[None]))
            result = models[kind].generate(view, [prompt], beam_size=int(beams), **length)[0]
            transcripts.append(result.sequences_ids[0])
        print(json.dumps(transcripts), file=answers, flush=True)


if __name__ == "__main__":
    main()
