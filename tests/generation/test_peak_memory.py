"""Memory that is mapped from files, and how much a model takes whose weights are unloaded."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from cpuaccel.generation.weights.mapped_memory import drop_pages, mapped, move_to_file
from cpuaccel.generation.weights.unloaded_weights import UnloadedWeights
from tests.required import requires

LINUX = "linux: 4.4"
ROOT = Path(__file__).parents[2]


def decoder_config(layers: int) -> Any:
    """The config of a decoder, whose layers have 11.7 M parameters each."""
    import transformers

    return transformers.LlamaConfig(
        vocab_size=4096,
        hidden_size=1024,
        intermediate_size=2816,
        num_hidden_layers=layers,
        num_attention_heads=16,
        num_key_value_heads=8,
    )


def measure(folder: Path, *arguments: str, layers: int) -> Any:
    """Measure a model in a process of its own, and assert that all its linears were unloaded."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.generation.peak_memory", str(folder), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout.splitlines()[-1])
    assert measured["calls"] == {"optimized": 1}
    assert measured["unloaded"] == 7 * layers + 1
    return measured


@requires(LINUX)
def test_peak_memory_is_that_of_the_packed_weights(tmp_path: Path) -> None:
    """Of a model in bfloat16 that is loaded from a folder, and is twice as large."""
    import transformers

    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(
            decoder_config(24), dtype=torch.bfloat16
        )
    model.to_empty(device="cpu")
    torch.manual_seed(0)
    with torch.no_grad():
        noise = 0.02 * torch.randn(65537)  # repeated: random numbers take long
        for weight in model.parameters():
            flat = weight.view(-1)
            flat.copy_(noise.repeat(len(flat) // len(noise) + 1)[: len(flat)])
    model.save_pretrained(tmp_path)
    del model
    measured = measure(tmp_path, layers=24)
    assert measured["packed"] > 280e6
    assert measured["peak"] <= 1.25 * (measured["packed"] + measured["cache"]), measured


@requires(LINUX)
def test_a_model_in_memory_becomes_smaller_weight_by_weight(tmp_path: Path) -> None:
    """It takes almost four times the packed weights, which never come on top of it."""
    decoder_config(8).save_pretrained(tmp_path)
    measured = measure(tmp_path, "in-memory", layers=8)
    assert measured["loaded"] > 3.7 * measured["packed"] > 370e6
    assert measured["peak"] <= measured["loaded"] + measured["packed"] / 2, measured
    assert measured["after"] <= measured["loaded"] / 2, measured


@pytest.mark.parametrize("bias", [False, True])
def test_a_large_linear_is_compared_in_parts(
    bias: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the same outputs, and only while it is compared."""
    monkeypatch.setenv("CPUACCEL_CACHE", str(tmp_path))
    monkeypatch.setattr("cpuaccel.generation.weights.unloaded_weights.MOST_READ", 1000)
    model: Any = torch.nn.Sequential(torch.nn.Linear(24, 130, bias=bias), torch.nn.Linear(130, 4))
    inputs = torch.randn(2, 3, 24)
    expected, first = model(inputs), model[0]
    unloaded = UnloadedWeights(model, lambda moved: None)
    assert all(map(unloaded.unload, [first.weight, model[1].weight]))
    with unloaded.kept_out(model):
        assert ["forward" in vars(module) for module in model] == [True, False]
        assert torch.allclose(model(inputs), expected, atol=1e-6)
    assert "forward" not in vars(first)
    assert not first._forward_hooks
    assert torch.equal(model(inputs), expected)


def test_moved_memory_can_be_written_to_and_is_then_kept(tmp_path: Path) -> None:
    tensor = torch.randn(64, 1024)
    moved = move_to_file(tensor, tmp_path)
    other = move_to_file(tensor, tmp_path)
    assert torch.equal(moved, tensor)
    moved[63, 5] = 7
    drop_pages(moved)
    assert moved[63, 5] == 7
    drop_pages(other)
    assert torch.equal(other, tensor)


@requires(LINUX)
def test_only_unchanged_pages_of_files_are_dropped(tmp_path: Path) -> None:
    tensor = torch.randn(64, 1024)
    moved = move_to_file(tensor, tmp_path)
    part = moved[3:7]
    assert list(map(id, mapped([tensor, moved, moved.t(), part]))) == [id(moved), id(part)]
    assert drop_pages(moved)
    moved[63, 5] = 7
    assert not drop_pages(moved)
    assert drop_pages(moved[:32])
