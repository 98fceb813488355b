"""From a module to the fused graph: the passes in their order."""

from collections.abc import Callable

import torch

from cpuaccel import Applied, BackendError, Context
from cpuaccel_plugins.aten_graph.capture import capture
from cpuaccel_plugins.aten_graph.cleanup import clean
from cpuaccel_plugins.aten_graph.codegen import emit
from cpuaccel_plugins.aten_graph.compiled import FixedSizes, FusedGraph
from cpuaccel_plugins.aten_graph.fold_constants import fold_constants
from cpuaccel_plugins.aten_graph.program import Program, value
from cpuaccel_plugins.aten_graph.size_cache import keep_what_sizes_decide
from cpuaccel_plugins.onednn.attention.choice import AttentionChoice
from cpuaccel_plugins.onednn.attention.joint_operands import join_operands
from cpuaccel_plugins.onednn.attention.rewrite import fuse_attention
from cpuaccel_plugins.onednn.conv.batch_norm import fold_batch_norm
from cpuaccel_plugins.onednn.conv.choice import ConvChoice
from cpuaccel_plugins.onednn.conv.pointwise import fuse_convs
from cpuaccel_plugins.onednn.evidence import evidence
from cpuaccel_plugins.onednn.heap import trim
from cpuaccel_plugins.onednn.huge_pages import gather
from cpuaccel_plugins.onednn.linear.binary import fuse_linear_add
from cpuaccel_plugins.onednn.linear.choice import Choice
from cpuaccel_plugins.onednn.linear.concat import concat_linears
from cpuaccel_plugins.onednn.linear.mkl_choice import MklChoice
from cpuaccel_plugins.onednn.linear.mkl_pass import use_mkl
from cpuaccel_plugins.onednn.linear.prepack import fuse_rest, prepack
from cpuaccel_plugins.onednn.linear.unary import fuse_linear_unary
from cpuaccel_plugins.onednn.remove_padding import remove_padding


def build(
    model: torch.nn.Module,
    context: Context,
    *,
    measure: bool,
    prepacked: bool,
    before_linears: Callable[[Program], None] | None = None,
) -> Applied:
    """Capture a model, fuse its graph, prepack its weights and compile it.

    Args:
        model: in eval mode; stays as it is.
        context: how it is called.
        measure: see the backend's options.
        prepacked: the same.
        before_linears: a pass that comes before those over linears, and leaves them the rest.

    Raises:
        BackendError: oneDNN is switched off, or the model can't be captured.
    """
    if not torch.backends.mkldnn.enabled:
        raise BackendError(
            "oneDNN is switched off in this process", "Set torch.backends.mkldnn.enabled = True"
        )
    program = capture(model, context.signature)
    program.release = context.release
    clean(program)
    choice, attention = Choice(measure, prepacked), AttentionChoice(measure)
    by_mkl = MklChoice(measure)

    def pack(program: Program) -> None:
        use_mkl(program, by_mkl)
        prepack(program)
        trim()

    padding = remove_padding(program, attention)
    fuse_attention(program, attention)
    if prepacked:
        fold_constants(program)
        fold_batch_norm(program)
        fuse_convs(program, ConvChoice(measure))
    if before_linears is not None:
        before_linears(program)
    # An activation or an addition belongs to one linear; only those with neither are joined.
    fuse_linear_unary(program, choice)
    fuse_linear_add(program, choice)
    if prepacked:
        concat_linears(program, choice, pack)
        join_operands(program)
    fuse_rest(program, choice)
    if prepacked:
        pack(program)
        program.huge = gather(t for t in program.tensors.values() if t.is_mkldnn)
    keep_what_sizes_decide(program)
    graph = FusedGraph(emit(program), _sizes(program))
    return Applied(graph, evidence=evidence(program, padding))


def _sizes(program: Program) -> FixedSizes:
    sizes: FixedSizes = {}
    for node in program.placeholders:
        found = value(node)
        if found is not None:
            sizes[str(node.target)] = tuple(s if isinstance(s, int) else None for s in found.shape)
    return sizes
