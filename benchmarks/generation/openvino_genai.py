"""Compare backends with OpenVINO GenAI in one run, in turn, with equal threads.

    python -m venv peer && peer/bin/pip install openvino-genai==2026.4.1.0
    python benchmarks/generation/openvino_genai.py --peer peer/bin/python --backends openvino_int8

All decode a model of the shape of Qwen2.5-0.5B with random weights: speeds are compared, and no
texts. OpenVINO GenAI gets the graph that the backend ``openvino`` exports, with weights in 8 bits
(or in float), and computes in the same precision as that backend.
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openvino
import torch
from peer import running
from rates import Rates
from transformers import Qwen2Config, Qwen2ForCausalLM

import cpuaccel
from cpuaccel.timing import interleave
from cpuaccel_plugins.openvino.base import PRECISIONS, cpu_settings
from cpuaccel_plugins.openvino.decoding.export import export
from cpuaccel_plugins.openvino.decoding.weights import Weights, compress

SHAPE: dict[str, Any] = {
    "vocab_size": 151936,
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": None,
    "pad_token_id": 0,
}

TINY: dict[str, Any] = {
    "vocab_size": 500,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
"""Changes of the shape for a quick check of this script."""

PEER = "OpenVINO GenAI"


def main() -> None:
    """Compare, and print medians and paired ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", required=True, help="Python of an environment with its package")
    parser.add_argument("--backends", nargs="+", default=["openvino_int8"])
    parser.add_argument("--weights", type=Weights, choices=Weights, default=Weights.INT8)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--kv-cache", help="precision of its cache; its products' by default")
    parser.add_argument("--attention", choices=("PA", "SDPA"), default="PA", help="of the peer")
    parser.add_argument("--words", type=int, default=128, help="length of the prompt, in tokens")
    parser.add_argument("--tokens", type=int, default=32, help="new tokens")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tiny", action="store_true", help="check the script with a tiny model")
    options = parser.parse_args()
    torch.manual_seed(0)
    config = Qwen2Config(**{**SHAPE, **(TINY if options.tiny else {})})
    model = Qwen2ForCausalLM(config).to(getattr(torch, options.dtype)).eval()
    with tempfile.TemporaryDirectory() as folder:
        write_graph(model, Path(folder), options.weights)
        compare(model, folder, options)


def write_graph(model: Qwen2ForCausalLM, folder: Path, weights: Weights) -> None:
    """Write the graph of a model for OpenVINO GenAI, which cuts it before the head itself."""
    exported = compress(export(model, "openvino", keeps=False), weights, model, "openvino")
    openvino.save_model(exported, folder / "openvino_model.xml", compress_to_fp16=False)
    model.config.save_pretrained(folder)


def compare(model: Qwen2ForCausalLM, folder: str, options: argparse.Namespace) -> None:
    """Generate in turn, and print what came out."""
    prompt = torch.full((1, options.words), 5)
    rates = Rates(options.tokens)

    def ours(name: str) -> Callable[[], None]:
        fast: Any = cpuaccel.optimize(model, [name], strict=True)
        fast.prepare_generation()
        print(fast.report.generation)
        return lambda: rates.generate(name, fast, prompt)

    few_bits = options.weights is not Weights.FLOAT and cpuaccel.host().bf16()
    precision = torch.bfloat16 if few_bits else model.dtype
    properties = cpu_settings(precision) | {
        # It can't keep keys and values in float32 when it computes in bfloat16.
        "KV_CACHE_PRECISION": options.kv_cache or PRECISIONS[precision],
        "ATTENTION_BACKEND": options.attention,
    }
    arguments = [folder, options.words, options.tokens, json.dumps(properties)]
    with running(options.peer, "openvino_genai_peer.py", arguments) as peer:

        def theirs() -> None:
            answer = peer.ask()
            assert answer["tokens"] == options.tokens, answer
            rates.add(PEER, answer["first"], answer["rest"])

        runs = {name: ours(name) for name in options.backends}
        interleave({**runs, PEER: theirs}, rounds=options.rounds, warmup=1)
    rates.print(options.words, PEER)


if __name__ == "__main__":
    main()
