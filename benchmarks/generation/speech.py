"""Compare backends with eager and CTranslate2 on Whisper, in one run, in turn, with equal threads.

    python -m venv peer && peer/bin/pip install ctranslate2 transformers torch
    python benchmarks/generation/speech.py MODEL_FOLDER RECORDINGS_FOLDER --peer peer/bin/python

Each run transcribes all recordings (wav, 16 kHz, mono), one after the other, each padded to 30
seconds; features are computed beforehand. CTranslate2 is the engine of faster-whisper; it converts
the same folder. Prints how many transcripts have the tokens of eager's, medians, and paired ratios.

With ``--join`` the recordings are one, of which the first 30 seconds are transcribed. With
``--base`` the model is one of the base size with random weights, of which all compute 100 tokens of
the joined recording: speeds are compared, and no texts.
"""

import argparse
import shutil
import tempfile
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peer import running
from transformers import (
    GenerationConfig,
    WhisperConfig,
    WhisperForConditionalGeneration,
    WhisperProcessor,
)

import cpuaccel
from cpuaccel import Step
from cpuaccel.timing import Ratio, interleave

RATE = 16000
EAGER = "eager"
DRAFTED = "onednn with a draft"
STEPS = {
    "onednn": Step("onednn"),
    DRAFTED: Step("onednn", draft_bits=8),
    "int8": Step("int8"),
}
PEERS = {"CTranslate2 float32": "float32", "CTranslate2 int8": "int8"}
PAIRS = {
    "onednn": "CTranslate2 float32",
    DRAFTED: "CTranslate2 float32",
    "int8": "CTranslate2 int8",
}
"""Which backend is compared with which computation of the peer."""

BASE: dict[str, Any] = {
    **{"d_model": 512, "encoder_layers": 6, "decoder_layers": 6},
    **{"encoder_attention_heads": 8, "decoder_attention_heads": 8},
    **{"encoder_ffn_dim": 2048, "decoder_ffn_dim": 2048},
}
"""The sizes of Whisper base."""

BASE_TOKENS = 100
"""New tokens of a model with random weights: about those of 30 seconds of speech."""

Transcripts = list[list[int]]


def main() -> None:
    """Compare, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, metavar="MODEL_FOLDER")
    parser.add_argument("recordings", type=Path, metavar="RECORDINGS_FOLDER")
    parser.add_argument("--peer", required=True, help="Python of an environment with its packages")
    parser.add_argument("--beams", type=int, nargs="+", default=[1, 5])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--join", action="store_true")
    parser.add_argument("--base", action="store_true")
    options = parser.parse_args()
    recordings = [*map(read, sorted(options.recordings.glob("*.wav")))]
    if options.join or options.base:
        recordings = [np.concatenate(recordings)]
    processor = WhisperProcessor.from_pretrained(options.model)
    features = [
        processor(samples, sampling_rate=RATE, return_tensors="pt").input_features
        for samples in recordings
    ]
    with tempfile.TemporaryDirectory() as folder:
        if options.base:
            options.model = save_base(options.model, Path(folder) / "model")
        run(options, features)


def save_base(source: Path, folder: Path) -> Path:
    """Save a model of the base size with random weights, with the other files of a model."""
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    config = WhisperConfig.from_pretrained(source)
    for name, value in BASE.items():
        setattr(config, name, value)
    torch.manual_seed(0)
    config.dtype = torch.float32
    model = WhisperForConditionalGeneration(config)
    model.generation_config = GenerationConfig.from_pretrained(source)
    model.save_pretrained(folder)
    return folder


def run(options: argparse.Namespace, features: list[torch.Tensor]) -> None:
    """Optimize the model, and compare for each number of beams."""
    model = WhisperForConditionalGeneration.from_pretrained(options.model, dtype=torch.float32)
    model = model.eval()
    optimized: dict[str, Any] = {EAGER: model}
    for name, step in STEPS.items():
        optimized[name] = cpuaccel.optimize(model, [step])
    for beams in options.beams:
        with tempfile.TemporaryDirectory() as folder:
            np.save(Path(folder) / "features.npy", torch.cat(features).numpy())
            compare(optimized, features, folder, beams, options)
    print(optimized["onednn"].report)


def read(file: Path) -> np.ndarray:
    """Read the samples of a recording as floats."""
    with wave.open(str(file)) as recording:
        samples = np.frombuffer(recording.readframes(recording.getnframes()), np.int16)
    return samples.astype(np.float32) / 2**15


def compare(
    optimized: dict[str, Any],
    features: list[torch.Tensor],
    folder: str,
    beams: int,
    options: argparse.Namespace,
) -> None:
    """Transcribe in turn, and print what came out."""
    found: dict[str, Transcripts] = {}
    length = {"min_new_tokens": BASE_TOKENS, "max_new_tokens": BASE_TOKENS} if options.base else {}

    def ours(name: str) -> Callable[[], None]:
        def run() -> None:
            with torch.inference_mode():
                found[name] = [
                    optimized[name]
                    .generate(one, num_beams=beams, do_sample=False, **length)[0]
                    .tolist()
                    for one in features
                ]

        return run

    threads = torch.get_num_threads()
    arguments = [options.model, folder, threads]
    with running(options.peer, "ctranslate2_peer.py", arguments) as peer:

        def theirs(name: str) -> Callable[[], None]:
            def run() -> None:
                tokens = BASE_TOKENS if options.base else 0
                found[name] = peer.ask(f"{PEERS[name]} {beams} {tokens}")

            return run

        # A draft guesses for one sequence, and not for beams.
        names = [name for name in optimized if beams == 1 or name != DRAFTED]
        runs = {name: ours(name) for name in names} | {name: theirs(name) for name in PEERS}
        times = interleave(runs, rounds=options.rounds, warmup=1)
    print(
        f"{cpuaccel.host().processor}, {threads} threads, {len(features)} recordings, {beams} beams"
    )
    expected = list(map(text_of, found[EAGER]))
    for name in runs:
        same = sum(map(list.__eq__, map(text_of, found[name]), expected))
        seconds = float(np.median(times[name]))
        over = (
            "" if name == EAGER else f", {Ratio.from_times(times[EAGER], times[name])} over eager"
        )
        print(f"{name:20} {seconds:6.2f} s{over}, {same} of {len(expected)} with eager's tokens")
    for name, other in PAIRS.items():
        if name in runs:
            print(f"{name} over {other}: {Ratio.from_times(times[other], times[name])}")


def text_of(tokens: list[int]) -> list[int]:
    """The tokens of the text: those before the first of Whisper's own."""
    return [token for token in tokens if token < 50256]


if __name__ == "__main__":
    main()
