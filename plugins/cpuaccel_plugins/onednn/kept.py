"""What graphs of ``onednn`` contain besides torch's operators, and restoring them."""

import os
from collections.abc import Callable
from dataclasses import replace

import torch
from pydantic import JsonValue

from cpuaccel import Applied, BackendError, Kept
from cpuaccel_plugins.aten_graph.keeping.kept_program import Vocabulary, restore_program
from cpuaccel_plugins.onednn.attention.attend import MethodByLength, attend
from cpuaccel_plugins.onednn.attention.masks import read_mask
from cpuaccel_plugins.onednn.attention.packed import (
    attend_packed,
    pack,
    read_layout,
    read_patterns,
    unpack,
)
from cpuaccel_plugins.onednn.linear import mkl

VOCABULARY = Vocabulary(
    (attend, attend_packed, mkl.linear, pack, read_layout, read_mask, read_patterns, unpack),
    (MethodByLength,),
)

_LIMITS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS")
"""Environment variables on which layouts of packed weights depend."""

_ENVIRONMENT = "environment"


def with_environment(keep: Callable[[], Kept]) -> Callable[[], Kept]:
    """Add to what is kept on which environment variables it depends."""

    def kept() -> Kept:
        found = keep()
        return replace(found, facts={**found.facts, _ENVIRONMENT: _environment()})

    return kept


def restore(kept: Kept, vocabulary: Vocabulary = VOCABULARY) -> Applied:
    """Compile a graph again on the weights that were packed for it.

    Args:
        kept: what the build kept.
        vocabulary: what the graph contains besides operators.

    Raises:
        BackendError: oneDNN is limited otherwise in this process, or the graph can't be read.
    """
    if not torch.backends.mkldnn.enabled:
        raise BackendError(
            "oneDNN is switched off in this process", "Set torch.backends.mkldnn.enabled = True"
        )
    if kept.facts.get(_ENVIRONMENT) != _environment():
        raise BackendError(
            f"{', '.join(_LIMITS)} were {kept.facts.get(_ENVIRONMENT)}, not {_environment()}",
            "Set them as in the process that saved the folder, or save it again",
        )
    return Applied(restore_program(kept, vocabulary), kept=lambda: kept)


def _environment() -> JsonValue:
    return {name: os.environ[name] for name in _LIMITS if name in os.environ}
