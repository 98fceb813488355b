"""From a module to the graph with linears in 8 bits."""

from collections.abc import Mapping
from dataclasses import replace

import torch

from cpuaccel import Applied, BackendError, Context, Evidence, Signature
from cpuaccel_plugins.aten_graph.program import Program
from cpuaccel_plugins.int8.arithmetic import multiply, multiply_add, quantize, sums_are_exact
from cpuaccel_plugins.int8.options import Int8Options
from cpuaccel_plugins.int8.quantize_linears import quantize_linears
from cpuaccel_plugins.int8.selection import Selection, select, told
from cpuaccel_plugins.int8.sensitivity import difference, least_in_float
from cpuaccel_plugins.int8.speed import Speed
from cpuaccel_plugins.int8.spread import Matrix, Spread, spreads
from cpuaccel_plugins.onednn.build import build as build_fused
from cpuaccel_plugins.onednn.evidence import share


def build(model: torch.nn.Module, context: Context, options: Int8Options) -> Applied:
    """Capture a model, bring linears to 8 bits, and fuse the rest as ``onednn`` does.

    Args:
        model: in eval mode; stays as it is.
        context: how it is called.
        options: the backend's.

    Raises:
        BackendError: it can't be captured, no linear is left to bring to 8 bits, or ``max_error``
            can't be kept.
    """
    if not sums_are_exact():
        raise BackendError(
            "oneDNN's 8 bit products saturate here: it does not use the processor's VNNI",
            "See whether ONEDNN_MAX_CPU_ISA is set, or use onednn",
        )
    found: dict[str, int | float | str] = {}
    signature = context.signature
    spread = spreads(lambda: signature.call(model, signature.inputs))

    def to_8_bits(program: Program) -> None:
        speed = Speed() if options.measure else None
        selection = select(
            program,
            model,
            float_names=options.float_names,
            float_kinds=options.float_kinds,
            speed=speed,
        )
        if options.max_error is not None:
            _keep_sensitive(selection, model, signature, options.max_error, spread)
        if not selection.chosen:
            why = told(selection.kept) or "there is none"
            raise BackendError(
                f"no linear is left to compute in 8 bits ({why})",
                "Use onednn, or leave fewer in float",
            )
        count = len(selection.chosen)
        quantize_linears(program, selection, spread)
        found.update(_evidence(program, selection, count, speed))

    applied = build_fused(
        model, context, measure=options.measure, prepacked=True, before_linears=to_8_bits
    )
    return replace(applied, evidence={**found, **applied.evidence})


def _keep_sensitive(
    selection: Selection,
    model: torch.nn.Module,
    signature: Signature,
    most: float,
    spread: Mapping[Matrix, Spread],
) -> None:
    flat, harm = difference(model, [signature.inputs], signature)
    candidates = list(dict.fromkeys(names[0] for names in selection.chosen.values()))
    kept = least_in_float(model, candidates, most, harm, spread, called=flat)
    selection.keep(kept, f"for a difference of at most {most:g}")


def _evidence(program: Program, selection: Selection, count: int, speed: Speed | None) -> Evidence:
    ratios = speed.ratios.values() if speed is not None else ()
    fast = [ratio for ratio in ratios if ratio > 1]
    return {
        "int8_linears": count,
        "int8_products": sum(1 for _ in program.calls(multiply, multiply_add)),
        "int8_inputs": sum(1 for _ in program.calls(quantize)),
        "share_of_flops_int8": f"{share(program, {multiply, multiply_add}):.1%}",
        **({"int8_over_float": f"{min(fast):.2f}x to {max(fast):.2f}x"} if fast else {}),
        **({"in_float": told(selection.kept)} if selection.kept else {}),
    }
