"""From a module to a fused graph: the list of passes."""

from collections.abc import Iterable
from functools import partial

import torch

from cpuaccel import Applied, BackendError, Context
from cpuaccel_plugins.aten_graph.capture import capture
from cpuaccel_plugins.aten_graph.cleanup import remove_redundant
from cpuaccel_plugins.aten_graph.compiled import CompiledGraph
from cpuaccel_plugins.aten_graph.fold_constants import fold_constants
from cpuaccel_plugins.aten_graph.memory import use_huge_pages
from cpuaccel_plugins.aten_graph.program import Pass, Program
from cpuaccel_plugins.aten_graph.size_cache import cache_by_size
from cpuaccel_plugins.onednn.attention.choice import AttentionChoice
from cpuaccel_plugins.onednn.attention.joint_operands import join_operands
from cpuaccel_plugins.onednn.attention.rewrite import fuse_attention
from cpuaccel_plugins.onednn.conv.batch_norm import fold_batch_norm
from cpuaccel_plugins.onednn.conv.choice import ConvChoice
from cpuaccel_plugins.onednn.conv.pointwise import fuse_convs
from cpuaccel_plugins.onednn.evidence import evidence
from cpuaccel_plugins.onednn.linear.binary import fuse_linear_add
from cpuaccel_plugins.onednn.linear.choice import LinearChoice, MklChoice
from cpuaccel_plugins.onednn.linear.concat import concat_linears
from cpuaccel_plugins.onednn.linear.pack import pack_linears
from cpuaccel_plugins.onednn.linear.unary import fuse_linear_unary, replace_remaining_linears
from cpuaccel_plugins.onednn.remove_padding import remove_padding


def build(model: torch.nn.Module, context: Context, *, measure: bool, prepack: bool) -> Applied:
    """Fuse a model's graph; for the options see ``OneDnnOptions``."""
    return run_passes(
        model,
        context,
        [
            *passes_before_linears(measure=measure, prepack=prepack),
            *linear_passes(measure=measure, prepack=prepack),
            cache_by_size,
        ],
    )


def run_passes(model: torch.nn.Module, context: Context, passes: Iterable[Pass]) -> Applied:
    """Capture a model in eval mode, run passes over its graph in order, and compile it."""
    if not torch.backends.mkldnn.enabled:
        raise BackendError(
            "oneDNN is switched off in this process", "Set torch.backends.mkldnn.enabled = True"
        )
    program = capture(model, context.signature, context.release)
    for change in passes:
        change(program)
    return Applied(CompiledGraph(program), evidence=evidence(program))


def passes_before_linears(*, measure: bool, prepack: bool) -> list[Pass]:
    """The passes over everything but linears."""
    attention = AttentionChoice(measure=measure)
    passes: list[Pass] = [
        remove_redundant,
        partial(remove_padding, choice=attention),
        partial(fuse_attention, choice=attention),
    ]
    if prepack:
        convs = ConvChoice(measure=measure)
        passes += [fold_constants, fold_batch_norm, partial(fuse_convs, choice=convs)]
    return passes


def linear_passes(*, measure: bool, prepack: bool) -> list[Pass]:
    """The passes over linears. Packed weights of convolutions are moved into huge pages, too."""
    accepts = LinearChoice(measure=measure, prepack=prepack).accepts
    # Only linears without an activation or an addition of their own are concatenated.
    fusions: list[Pass] = [
        partial(fuse_linear_unary, accepts=accepts),
        partial(fuse_linear_add, accepts=accepts),
    ]
    remaining = partial(replace_remaining_linears, accepts=accepts)
    if not prepack:
        return [*fusions, remaining]
    pack = partial(pack_linears, prefers_mkl=MklChoice(measure=measure).prefers_mkl)
    return [
        *fusions,
        partial(concat_linears, accepts=accepts, pack=pack),
        join_operands,
        remaining,
        pack,
        _use_huge_pages,
    ]


def _use_huge_pages(program: Program) -> None:
    packed = (tensor for tensor in program.tensors.values() if tensor.is_mkldnn)
    program.huge_page_bytes = use_huge_pages(packed)
