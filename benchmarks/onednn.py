"""Compare the backend ``onednn`` with eager, Inductor and OpenVINO, in one interleaved run.

    python benchmarks/onednn.py bert-base [--dtype bfloat16] [--shapes 1x128,1x384,8x384]
        [--padding 0.5] [--engines eager,onednn,bettertransformer+onednn,inductor,openvino]

Models have random weights. ``t5-encoder`` and ``resnet-50`` are defined here, the others as for
``cpuaccel bench config:NAME``. All engines use the same number of threads. Builds are timed, too.
``openvino`` needs openvino, ``inductor`` a C++ compiler.
"""

import argparse
import functools
import statistics
import time
import warnings
from collections.abc import Callable

import torch
from torch import nn

import cpuaccel
from cpuaccel.cli.models.inputs import make_inputs
from cpuaccel.cli.models.load import load_model
from cpuaccel.timing import Ratio, interleave

Inputs = dict[str, torch.Tensor]
Call = Callable[[Inputs], object]

SECONDS = 12.0
"""For each shape; no round starts after it."""


class Bottleneck(nn.Module):
    """ResNet-50's block."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *convolution(inputs, width, 1),
            nn.ReLU(inplace=True),
            *convolution(width, width, 3, stride),
            nn.ReLU(inplace=True),
            *convolution(width, 4 * width, 1),
        )
        same = stride == 1 and inputs == 4 * width
        self.skip = (
            nn.Identity() if same else nn.Sequential(*convolution(inputs, 4 * width, 1, stride))
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape (batch, channels, height, width)."""
        return torch.relu(self.body(x) + self.skip(x))


def convolution(inputs: int, outputs: int, kernel: int, stride: int = 1) -> tuple[nn.Module, ...]:
    """A convolution whose padding keeps the size, and its batch norm."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return conv, nn.BatchNorm2d(outputs)


class ResNet50(nn.Module):
    """ResNet-50 for images of 224 x 224."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            *convolution(3, 64, 7, 2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, 1),
        ]
        channels = 64
        for stage, blocks in enumerate((3, 4, 6, 3)):
            for block in range(blocks):
                width = 64 * 2**stage
                layers.append(Bottleneck(channels, width, 2 if stage and not block else 1))
                channels = 4 * width
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(channels, 1000)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Shape (batch, 3, 224, 224) becomes (batch, 1000)."""
        logits: torch.Tensor = self.head(self.layers(pixel_values).mean((2, 3)))
        return logits


def make_model(name: str) -> nn.Module:
    """A model with random weights, in eval mode."""
    torch.manual_seed(0)
    if name == "resnet-50":
        return ResNet50().eval()
    if name == "t5-encoder":
        import transformers

        config = transformers.T5Config(d_model=768, d_ff=3072, num_layers=12, num_heads=12)
        encoder: nn.Module = transformers.T5EncoderModel(config).eval()
        return encoder
    task = "question-answering" if name == "bert-base" else None
    return load_model(f"config:{name}", task)


def inputs_for(model: nn.Module, shape: str, padding: float) -> Inputs:
    """Inputs of a shape such as ``8x384``; for images, only the batch counts."""
    batch, length = map(int, shape.split("x"))
    if isinstance(model, ResNet50):
        return {"pixel_values": torch.randn(batch, 3, 224, 224)}
    made = make_inputs(model, batch, length, padding if batch > 1 else 0.0)
    return {name: tensor for name, tensor in made.items() if isinstance(tensor, torch.Tensor)}


def build(engine: str, model: nn.Module, example: Inputs, dtype: str) -> Call:
    """Optimize a model with an engine, or with a pipeline such as ``bettertransformer+onednn``."""
    steps = [] if engine == "eager" else engine.split("+")
    fast = cpuaccel.optimize(model, steps, dtype=dtype, example_inputs=example)
    for outcome in fast.report.outcomes:
        print(f"  {outcome}")
    return lambda inputs: fast(**inputs)


def main() -> None:
    """Build every engine once, then time all of them in turn for each shape."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--shapes", default="1x128,1x384")
    parser.add_argument("--padding", type=float, default=0.0)
    parser.add_argument("--engines", default="eager,onednn,openvino")
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    model = make_model(arguments.model)
    batches = [
        (shape, inputs_for(model, shape, arguments.padding))
        for shape in arguments.shapes.split(",")
    ]
    calls: dict[str, Call] = {}
    print(f"{arguments.model}, {arguments.dtype}, {torch.get_num_threads()} threads")
    with torch.no_grad():
        for engine in arguments.engines.split(","):
            begun = time.perf_counter()
            calls[engine] = build(engine, model, batches[-1][1], arguments.dtype)
            print(f"  {engine} built in {time.perf_counter() - begun:.1f} s", flush=True)
        for shape, inputs in batches:
            times = interleave(
                {name: functools.partial(call, inputs) for name, call in calls.items()},
                rounds=arguments.rounds,
                seconds=SECONDS,
                warmup=2,
            )
            for name, seconds in times.items():
                against = "".join(
                    f", {Ratio.from_times(times[other], seconds)} of {other}"
                    for other in ("eager", "openvino")
                    if other in times and other != name
                )
                median = statistics.median(seconds) * 1000
                print(f"{shape:>6}  {name:26} {median:9.2f} ms{against}", flush=True)


if __name__ == "__main__":
    main()
