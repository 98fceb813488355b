"""From a module to a graph with linears in 8 bits: the list of passes."""

from collections.abc import Mapping
from functools import partial

import torch

from cpuaccel import Applied, BackendError, Context, Evidence, Signature
from cpuaccel_plugins.aten_graph.program import Program
from cpuaccel_plugins.int8.arithmetic import (
    VOCABULARY,
    int8_linear,
    int8_linear_add,
    quantize,
    require_exact_sums,
)
from cpuaccel_plugins.int8.choice import Int8Choice
from cpuaccel_plugins.int8.options import Int8Options
from cpuaccel_plugins.int8.outliers import OutlierSplit, WeightKey, outlier_splits
from cpuaccel_plugins.int8.quantize_linears import quantize_linears
from cpuaccel_plugins.int8.selection import Selection, describe, select
from cpuaccel_plugins.int8.sensitivity import fewest_in_float, output_difference
from cpuaccel_plugins.onednn.build import build as build_onednn
from cpuaccel_plugins.onednn.evidence import share_of_flops
from cpuaccel_plugins.onednn.kept import VOCABULARY as ONEDNN_VOCABULARY


def build(model: torch.nn.Module, context: Context, options: Int8Options) -> Applied:
    """Capture a model, quantize linears, and fuse the rest as ``onednn`` does."""
    require_exact_sums()
    signature = context.signature
    splits = outlier_splits(lambda: signature.call(model, signature.inputs))
    quantization = partial(
        _quantize, model=model, signature=signature, options=options, splits=splits
    )
    return build_onednn(
        model,
        context,
        measure=options.measure,
        prepack=True,
        before_linears=[quantization],
        exact=False,
        vocabulary=ONEDNN_VOCABULARY + VOCABULARY,
    )


def _quantize(
    program: Program,
    model: torch.nn.Module,
    signature: Signature,
    options: Int8Options,
    splits: Mapping[WeightKey, OutlierSplit],
) -> None:
    choice = Int8Choice(measure=options.measure)
    selection = select(
        program,
        model,
        choice,
        float_names=options.float_names,
        float_kinds=options.float_kinds,
    )
    if options.max_error is not None:
        flat, error = output_difference(model, [signature.inputs], signature)
        sensitive = fewest_in_float(
            model, selection.names(), options.max_error, error, splits, called=flat
        )
        selection.leave_in_float(sensitive, f"for a difference of at most {options.max_error:g}")
    if not selection.chosen:
        counts = (f"{len(names)} {reason}" for reason, names in selection.in_float.items())
        raise BackendError(
            f"no linear is left to compute in 8 bits ({', '.join(counts) or 'there is none'})",
            "Use onednn, or leave fewer in float",
            skipped=True,
        )
    count = len(selection.chosen)
    quantize_linears(program, selection, splits)
    program.evidence.update(_evidence(program, selection, count, choice))


def _evidence(program: Program, selection: Selection, count: int, choice: Int8Choice) -> Evidence:
    share = share_of_flops(program, {int8_linear, int8_linear_add})
    speedups = choice.speedups()
    fastest = f"{min(speedups):.2f}x to {max(speedups):.2f}x" if speedups else ""
    return {
        "int8_linears": count,
        "int8_products": len(list(program.calls(int8_linear, int8_linear_add))),
        "int8_inputs": len(list(program.calls(quantize))),
        "share_of_flops_int8": f"{share:.1%}",
        "int8_over_float": fastest,
        "in_float": describe(selection.in_float),
    }
