"""From a module to the fused graph: the passes in their order."""

from collections.abc import Callable

import torch

from cpuaccel import Applied, BackendError, Context

from .attention import fuse_attention
from .attention_choice import AttentionChoice
from .capture import capture
from .choice import Choice
from .cleanup import clean
from .concat_linear import concat_linears
from .constants import fold_constants
from .conv_bn import fold_batch_norm
from .conv_choice import ConvChoice
from .conv_pointwise import fuse_convs
from .emit import emit
from .evidence import evidence
from .heap import trim
from .huge_pages import gather
from .joint_operands import join_operands
from .kept import keep_what_sizes_decide
from .linear_binary import fuse_linear_add
from .linear_unary import fuse_linear_unary
from .mkl_choice import MklChoice
from .mkl_linear import use_mkl
from .prepack import fuse_rest, prepack
from .program import Program, value
from .remove_padding import remove_padding
from .runtime import FixedSizes, FusedGraph


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
