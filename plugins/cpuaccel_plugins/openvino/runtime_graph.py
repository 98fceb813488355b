"""Evidence of what OpenVINO executes, from the runtime graph of the compiled model."""

from collections import Counter
from typing import TYPE_CHECKING

import torch

from cpuaccel import BackendError, dtype_name

if TYPE_CHECKING:
    import openvino

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
"""Floating precisions by their names in the runtime graph."""

MULTIPLYING = frozenset({"FullyConnected", "MatMul", "Convolution", "ScaledDotProductAttention"})
"""Node types that take nearly all of the time: these must run in the requested precision."""

INT8 = frozenset({"i8", "u8"})
INT8_PRODUCTS = "products_in_int8"
"""Name of the count of matrix products in 8 bits in the evidence."""

IDLE = frozenset({"Const", "Input", "Output"})


def execution_evidence(
    compiled: "openvino.CompiledModel", asked: torch.dtype
) -> dict[str, int | float | str]:
    """Count nodes by precision and fused nodes of a model that ran once, and check the precision.

    Kernels for dynamic shapes are chosen in the first call.
    """
    hint = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    counts: Counter[str] = Counter()
    multiplying: Counter[torch.dtype] = Counter()
    fused: Counter[str] = Counter()
    for node in compiled.get_runtime_model().get_ops():
        facts = node.get_rt_info()
        kind, precision, origins = (
            facts[name].astype(str)
            for name in ("layerType", "runtimePrecision", "originalLayersNames")
        )
        if kind in IDLE:
            continue
        counts["nodes"] += 1
        if precision in INT8 and kind in MULTIPLYING:
            counts[INT8_PRODUCTS] += 1
        dtype = DTYPES.get(precision)
        if dtype is not None:
            counts[f"nodes_in_{dtype_name(dtype)}"] += 1
            if kind in MULTIPLYING:
                multiplying[dtype] += 1
        if "," in origins:
            fused[kind] += 1
    others = {dtype: n for dtype, n in multiplying.items() if dtype is not asked}
    if DTYPES.get(hint) is not asked or others:
        name = dtype_name(asked)
        products = (f" and {n} matrix products in {dtype_name(d)}" for d, n in others.items())
        raise BackendError(
            f"OpenVINO must run in {name}, but uses the hint {hint}{''.join(products)}",
            f"Use another dtype than {name}, or leave openvino out",
        )
    return {
        "precision": dtype_name(asked),
        "threads": int(compiled.get_property("INFERENCE_NUM_THREADS")),
        **counts,
        **{f"fused_{kind}": count for kind, count in sorted(fused.items())},
    }
