"""What OpenVINO really executes, read from the compiled model's runtime graph."""

from collections import Counter
from typing import TYPE_CHECKING

import torch

from cpuaccel import BackendError, dtype_name

if TYPE_CHECKING:
    import openvino

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
"""Floating precisions as the runtime graph spells them."""

MULTIPLYING = frozenset({"FullyConnected", "MatMul", "Convolution", "ScaledDotProductAttention"})
"""Node types in which nearly all of the time goes: the precision of these is what was asked."""

INT8 = frozenset({"i8", "u8"})
INT8_PRODUCTS = "products_in_int8"
"""The name of the evidence for matrix products in 8 bits."""

IDLE = frozenset({"Const", "Input", "Output"})


def execution_evidence(
    compiled: "openvino.CompiledModel", asked: torch.dtype
) -> dict[str, int | float | str]:
    """Say in which precision the nodes run and what was fused, and insist on what was asked.

    Args:
        compiled: a model that has run once: before, kernels for dynamic shapes are not chosen.
        asked: the precision that OpenVINO was told to use.

    Raises:
        BackendError: OpenVINO runs in another precision.
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
            f"OpenVINO was asked for {name}, but it runs with the hint {hint}{''.join(products)}",
            f"Ask for another dtype than {name}, or leave openvino out",
        )
    return {
        "precision": dtype_name(asked),
        "threads": int(compiled.get_property("INFERENCE_NUM_THREADS")),
        **counts,
        **{f"fused_{kind}": count for kind, count in sorted(fused.items())},
    }
