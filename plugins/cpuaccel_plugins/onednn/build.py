"""From a module to a fused graph: the list of passes."""

from collections.abc import Sequence
from functools import partial

import torch

from cpuaccel import Applied, BackendError, Context
from cpuaccel_plugins.aten_graph.capture import capture
from cpuaccel_plugins.aten_graph.cleanup import remove_redundant
from cpuaccel_plugins.aten_graph.compiled import CompiledGraph, fixed_sizes
from cpuaccel_plugins.aten_graph.fold_constants import fold_constants
from cpuaccel_plugins.aten_graph.keeping.kept_program import (
    UnknownValueError,
    Vocabulary,
    keep_program,
)
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
from cpuaccel_plugins.onednn.kept import VOCABULARY, with_environment
from cpuaccel_plugins.onednn.linear.choice import LinearChoice, MklChoice
from cpuaccel_plugins.onednn.linear.concat import concat_linears
from cpuaccel_plugins.onednn.linear.pack import pack_linears
from cpuaccel_plugins.onednn.linear.pointwise import fuse_linears
from cpuaccel_plugins.onednn.remove_padding import remove_padding


def build(
    model: torch.nn.Module,
    context: Context,
    *,
    measure: bool,
    prepack: bool,
    before_linears: Sequence[Pass] = (),
    exact: bool = True,
    vocabulary: Vocabulary = VOCABULARY,
) -> Applied:
    """Capture a model in eval mode, run the passes over its graph in order, and compile it.

    For the options see ``OneDnnOptions``. Another backend may add passes before those over linears,
    and let attention multiply float32 in bfloat16 (not ``exact``). ``vocabulary`` is
    what its graphs contain besides operators.
    """
    if not torch.backends.mkldnn.enabled:
        raise BackendError(
            "oneDNN is switched off in this process", "Set torch.backends.mkldnn.enabled = True"
        )
    program = capture(model, context.signature, context.release)
    for change in _passes(measure, prepack, before_linears, exact):
        change(program)
    facts, fixed, kept = evidence(program), fixed_sizes(program), None
    try:
        kept = with_environment(keep_program(program, fixed, vocabulary))
    except UnknownValueError as error:
        facts = {**facts, "not_kept": f"the graph has {error}"}
    return Applied(CompiledGraph(program, fixed), evidence=facts, kept=kept)


def _passes(
    measure: bool, prepack: bool, before_linears: Sequence[Pass], exact: bool
) -> list[Pass]:
    attention = AttentionChoice(measure=measure, exact=exact)
    accepts = LinearChoice(measure=measure, prepack=prepack).accepts
    fuse = partial(fuse_linears, accepts=accepts)
    first: list[Pass] = [
        remove_redundant,
        partial(remove_padding, choice=attention),
        partial(fuse_attention, choice=attention),
    ]
    if not prepack:
        return [*first, *before_linears, fuse, cache_by_size]
    pack = partial(pack_linears, prefers_mkl=MklChoice(measure=measure).prefers_mkl)
    return [
        *first,
        fold_constants,
        fold_batch_norm,
        partial(fuse_convs, choice=ConvChoice(measure=measure)),
        *before_linears,
        partial(concat_linears, accepts=accepts, pack=pack),
        join_operands,
        fuse,
        pack,
        _use_huge_pages,
        cache_by_size,
    ]


def _use_huge_pages(program: Program) -> None:
    packed = (tensor for tensor in program.tensors.values() if tensor.is_mkldnn)
    program.huge_page_bytes = use_huge_pages(packed)
