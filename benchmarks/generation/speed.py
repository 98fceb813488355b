"""Tokens a second of ``generate``: the original and pipelines, interleaved in one process.

    python benchmarks/generation/speed.py --layers 24 --dtype float32 --pipelines onednn int8

The model is Qwen2.5-0.5B's shape with random weights, which is enough for speed, or that of
``--hidden`` and others. For each prompt length and batch size it prints, as medians over rounds,
the time to the first token, tokens a second after it over all rows, and the paired ratio to the
original with its range.
"""

import argparse
import copy
import statistics
from collections.abc import Callable

import torch
import transformers

import cpuaccel
from cpuaccel.generation.meter import read_bandwidth
from cpuaccel.timing import interleave

Generate = Callable[..., object]


def make_model(arguments: argparse.Namespace) -> transformers.PreTrainedModel:
    """Qwen2's architecture with random weights."""
    torch.manual_seed(0)
    config = transformers.Qwen2Config(
        vocab_size=arguments.vocabulary,
        hidden_size=arguments.hidden,
        intermediate_size=arguments.intermediate,
        num_hidden_layers=arguments.layers,
        num_attention_heads=arguments.hidden // 64,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        max_position_embeddings=4096,
        eos_token_id=None,
        pad_token_id=0,
    )
    dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[arguments.dtype]
    return transformers.Qwen2ForCausalLM(config).to(dtype).eval()


def prompts(batch: int, length: int) -> dict[str, torch.Tensor]:
    """Random tokens, the rows after the first padded on the left by a quarter and more."""
    ids = torch.randint(10, 1000, (batch, length), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    for row in range(1, batch):
        mask[row, : length // 4 * row // batch] = 0
    return {"input_ids": ids, "attention_mask": mask}


def run(generate: Generate, inputs: dict[str, torch.Tensor], tokens: int) -> None:
    """Generate greedily, always so many tokens."""
    generate(**inputs, do_sample=False, min_new_tokens=tokens, max_new_tokens=tokens)


def compare(
    arguments: argparse.Namespace, batch: int, length: int, models: dict[str, Generate]
) -> None:
    """Print a row for each model."""
    inputs = prompts(batch, length)
    tokens = arguments.tokens

    def calls(count: int) -> dict[str, Callable[[], object]]:
        return {
            name: lambda generate=generate: run(generate, inputs, count)
            for name, generate in models.items()
        }

    first = interleave(calls(1), rounds=arguments.rounds)
    whole = interleave(calls(tokens), rounds=arguments.rounds)
    decode = {
        name: [w - statistics.median(first[name]) for w in times] for name, times in whole.items()
    }
    for name in models:
        rate = batch * (tokens - 1) / statistics.median(decode[name])
        ratios = sorted(e / t for e, t in zip(decode["original"], decode[name], strict=True))
        prefill = [e / t for e, t in zip(first["original"], first[name], strict=True)]
        print(
            f"batch {batch}  prompt {length:4}  {name:10} first token "
            f"{statistics.median(first[name]):6.3f} s ({statistics.median(prefill):.2f}x)  "
            f"{rate:7.2f} tokens/s  {statistics.median(ratios):.2f}x "
            f"[{ratios[0]:.2f}, {ratios[-1]:.2f}]",
            flush=True,
        )


def main() -> None:
    """Parse the command line and compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--pipelines", nargs="+", default=["onednn", "int8"])
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--hidden", type=int, default=896)
    parser.add_argument("--intermediate", type=int, default=4864)
    parser.add_argument("--vocabulary", type=int, default=151936)
    parser.add_argument("--prompt-lengths", type=int, nargs="+", default=[128])
    parser.add_argument("--batches", type=int, nargs="+", default=[1])
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    model = make_model(arguments)
    host = cpuaccel.host()
    print(
        f"{host.processor}, {torch.get_num_threads()} threads, reads "
        f"{read_bandwidth() / 1e9:.1f} GB/s; {arguments.dtype}, "
        f"{sum(p.numel() for p in model.parameters()) / 1e6:.0f} M parameters"
    )
    models: dict[str, Generate] = {"original": copy.copy(model).generate}
    optimized = {}
    for name in arguments.pipelines:
        optimized[name] = cpuaccel.optimize(model, name.split(","))
        models[name] = optimized[name].generate
    for batch in arguments.batches:
        for length in arguments.prompt_lengths:
            compare(arguments, batch, length, models)
    for name, fast in optimized.items():
        print(name, fast.report.generation, sep="\n")


if __name__ == "__main__":
    main()
