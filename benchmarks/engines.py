"""Compare each engine through cpuaccel with direct use of the same engine, in interleaved calls.

    python benchmarks/engines.py minilm-l6 [--dtype bfloat16] [--shapes 1x128,8x128]
        [--engines openvino,onnxruntime,inductor,zentorch] [--rounds 30] [--seconds 8]

Direct use is the minimal code with the same settings: as many threads as torch uses, the same
precision, dynamic batch and length, frozen weights. Models are those of ``cpuaccel bench
config:NAME``, with random weights. Prints both medians, and the median and quartiles of the time
through cpuaccel relative to the direct time, by pairs of calls.
"""

import argparse
import os
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


def openvino(model: nn.Module, example: Inputs, dtype: torch.dtype) -> Call:
    """``convert_model`` and ``compile_model``."""
    import openvino as ov

    settings = {
        "INFERENCE_PRECISION_HINT": {torch.float32: "f32", torch.bfloat16: "bf16"}[dtype],
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,
    }
    compiled = ov.compile_model(ov.convert_model(model, example_input=example), "CPU", settings)
    request = compiled.create_infer_request()
    return lambda inputs: request.infer({name: tensor.numpy() for name, tensor in inputs.items()})


def onnxruntime(model: nn.Module, example: Inputs, dtype: torch.dtype) -> Call:
    """``torch.onnx.export`` and an ``InferenceSession``, with eager attention."""
    import onnxruntime as ort

    if dtype is not torch.float32:
        raise SystemExit(f"onnxruntime supports float32 only, got {dtype}")
    eager = cpuaccel.shared_copy(model)
    eager.set_attn_implementation("eager")
    program = torch.onnx.export(
        eager,
        kwargs=example,
        dynamic_shapes={name: dict.fromkeys((0, 1), torch.export.Dim.AUTO) for name in example},
        dynamo=True,
        verbose=False,
    )
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    session = ort.InferenceSession(
        program.model_proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return lambda inputs: session.run(None, {name: t.numpy() for name, t in inputs.items()})


def inductor(model: nn.Module, example: Inputs, dtype: torch.dtype) -> Call:
    """``torch.compile`` with frozen weights and dynamic sizes."""
    return _compiled(model, example, dtype, "inductor")


def zentorch(model: nn.Module, example: Inputs, dtype: torch.dtype) -> Call:
    """``torch.compile`` with zentorch's backend."""
    import zentorch  # noqa: F401

    return _compiled(model, example, dtype, "zentorch")


def _compiled(model: nn.Module, example: Inputs, dtype: torch.dtype, backend: str) -> Call:
    import torch._inductor.config as config

    cast = cpuaccel.shared_copy(model, dtype)
    compiled = torch.compile(cast, backend=backend, dynamic=True)
    with config.patch(freezing=True, joint_custom_post_pass=None):
        for inputs in (example, {name: tensor[:1].clone() for name, tensor in example.items()}):
            compiled(**inputs)
    return lambda inputs: compiled(**inputs)


DIRECT = {f.__name__: f for f in (openvino, onnxruntime, inductor, zentorch)}


def main() -> None:
    """Build each engine directly and through cpuaccel, and time both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--shapes", default="1x128,8x128")
    parser.add_argument("--engines", default=",".join(DIRECT))
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=8.0)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    os.environ["ORT_DISABLE_TELEMETRY"] = os.environ["CI"] = "1"
    os.environ["ZENDNNL_MATMUL_WEIGHT_CACHE"] = "0"  # as in the backend
    dtype = getattr(torch, arguments.dtype)
    torch.manual_seed(0)
    model = load_model(f"config:{arguments.model}", None)
    example = tokens(model, "2x128")
    print(f"{arguments.model}, {arguments.dtype}, {torch.get_num_threads()} threads", flush=True)
    with torch.no_grad():
        for engine in arguments.engines.split(","):
            start = time.perf_counter()
            direct = DIRECT[engine](model, example, dtype)
            middle = time.perf_counter()
            fast = cpuaccel.optimize(
                model, [engine], dtype=dtype, example_inputs=example, strict=True
            )
            built = time.perf_counter()
            print(f"{engine}: built in {middle - start:.1f} s, by cpuaccel {built - middle:.1f} s")
            for shape in arguments.shapes.split(","):
                compare(engine, shape, model, direct, fast, arguments)
            print(f"  {fast.report.outcomes[-1]}", flush=True)


def tokens(model: nn.Module, shape: str) -> Inputs:
    """Make inputs of a shape such as ``8x128``, without padding."""
    inputs = make_inputs(model, *map(int, shape.split("x")), 0.0)
    return {name: tensor for name, tensor in inputs.items() if isinstance(tensor, torch.Tensor)}


def compare(
    engine: str,
    shape: str,
    model: nn.Module,
    direct: Call,
    fast: cpuaccel.OptimizedModel,
    arguments: argparse.Namespace,
) -> None:
    """Time one engine on inputs of one shape."""
    inputs = tokens(model, shape)
    calls: dict[str, Callable[[], object]] = {
        "direct": lambda: direct(inputs),
        "cpuaccel": lambda: fast(**inputs),
    }
    # Eager separately: its threads spin after a call and slow down the next one.
    times = interleave(calls, rounds=arguments.rounds, seconds=arguments.seconds, warmup=3)
    eager_times = interleave(
        {"eager": lambda: model(**inputs), "cpuaccel": calls["cpuaccel"]},
        rounds=arguments.rounds,
        seconds=arguments.seconds / 2,
    )
    assert set(fast.report.calls) == {"optimized"}, fast.report
    medians = "  ".join(f"{n} {statistics.median(t) * 1000:7.2f} ms" for n, t in times.items())
    ratio = Ratio.from_times(times["cpuaccel"], times["direct"])
    speedup = Ratio.from_times(eager_times["eager"], eager_times["cpuaccel"])
    print(
        f"  {engine:12} {shape:>6}  {medians}  time relative to direct {ratio} "
        f"({ratio.pairs} pairs)  speedup over eager {speedup}",
        flush=True,
    )


if __name__ == "__main__":
    main()
