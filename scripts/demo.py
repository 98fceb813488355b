"""``make demo``: what this machine can do with trained models, in less than two minutes.

python scripts/demo.py [--whisper FOLDER --recording FILE.wav]
"""

import argparse
import sys
import time
import wave
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

import cpuaccel
from cpuaccel.cli.generate.load import encode, load
from cpuaccel.cli.generate.stream import Stream, make_printer
from cpuaccel.cli.main import main

PROMPT = "Why is the sky blue?"
TOKENS = 20


def bench(chart: Path) -> None:
    """Embed sentences with a trained MiniLM, by several pipelines in turn."""
    say("1. Embeddings: 80 sentences, MiniLM-L6, each pipeline in turn with eager")
    try:
        main(["bench", "demo", "--plot", str(chart)])
    except SystemExit as done:
        if done.code:
            raise


def chat() -> None:
    """Stream the same text from the original and from the optimized model."""
    model, tokenizer = load("smollm2", "float32")
    inputs, _ = encode("smollm2", tokenizer, PROMPT, chat=True)
    backend = "onednn"
    say(f"2. Text: SmolLM2-135M-Instruct, {TOKENS} tokens, eager and then {backend}")
    print(f"> {PROMPT}")
    fast = cpuaccel.optimize(model, [backend])
    fast.generate(**inputs, max_new_tokens=2, do_sample=False)  # builds
    results = {}
    for name, writer in (("eager", model), (backend, fast)):
        results[name] = _stream(writer, tokenizer, inputs)
        print(f"  [{name}: {results[name][0]:.1f} tokens/s]")
    (before, expected), (after, found) = results.values()
    same = "the same tokens" if found == expected else "OTHER tokens"
    print(f"  {after / before:.2f} times as fast, {same}; calls: {dict(fast.report.calls)}")


def _stream(model: Any, tokenizer: Any, inputs: Any) -> tuple[float, list[int]]:
    stream = Stream(make_printer(tokenizer), lambda: None, encodes=False)
    model.generate(**inputs, max_new_tokens=TOKENS, do_sample=False, streamer=stream)
    return stream.tokens_per_second or 0.0, stream.tokens


def transcribe(folder: Path, recording: Path) -> None:
    """Transcribe a recording with the original Whisper and the optimized one."""
    say(f"3. Speech: {folder.name}, {recording.name}")
    model = transformers.AutoModelForSpeechSeq2Seq.from_pretrained(folder, dtype=torch.float32)
    processor = transformers.AutoProcessor.from_pretrained(folder)
    features = processor(_read(recording), sampling_rate=16000, return_tensors="pt").input_features
    fast = cpuaccel.optimize(model.eval(), ["onednn"])
    fast.generate(features)  # builds
    for name, one in (("eager", model), ("onednn", fast)):
        begun = time.perf_counter()
        tokens = one.generate(features)
        seconds = time.perf_counter() - begun
        (text,) = processor.batch_decode(tokens, skip_special_tokens=True)
        print(f"  {name} in {seconds:.2f} s:{text}")


def _read(recording: Path) -> "np.ndarray[Any, np.dtype[np.float32]]":
    """Read 16-bit samples at 16 kHz, one channel, shape (samples,)."""
    with wave.open(str(recording)) as file:
        form = file.getframerate(), file.getnchannels(), file.getsampwidth()
        if form != (16000, 1, 2):
            sys.exit(f"{recording} must have 16 kHz, one channel, 16 bits, got {form}")
        samples = np.frombuffer(file.readframes(file.getnframes()), np.int16)
    return samples.astype(np.float32) / 2**15


def say(title: str) -> None:
    """Print the title of a part."""
    print(f"\n== {title}\n", flush=True)


def run() -> None:
    """Run the demo."""
    parser = argparse.ArgumentParser(description="Show what cpuaccel does on this machine.")
    parser.add_argument("--whisper", type=Path, help="a folder with a Whisper model")
    parser.add_argument("--recording", type=Path, help="a recording: WAV, 16 kHz, one channel")
    options = parser.parse_args()
    if (options.whisper is None) != (options.recording is None):
        parser.error("pass --whisper and --recording, or neither")
    chart = cpuaccel.cache_folder("demo") / "speed.svg"
    chart.parent.mkdir(parents=True, exist_ok=True)
    bench(chart)
    chat()
    if options.whisper is not None:
        transcribe(options.whisper, options.recording)
    command = Path(sys.executable).with_name("cpuaccel")
    say("Next")
    print(f"The chart: {chart}")
    print("Try:")
    print(f"  {command} doctor")
    print(f"  {command} bench ./my-model --plot speed.svg")
    print(f"  {command} tune demo --budget 120 --html tuning.html")


if __name__ == "__main__":
    run()
