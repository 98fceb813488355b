"""What a backend keeps of a build, so that another process need not make it again."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from pydantic import JsonValue


@dataclass(frozen=True)
class Kept:
    """Parts of a build that take long to make.

    ``OptimizedModel.save`` writes them; ``cpuaccel.load`` maps the tensors from the file, with the
    same weights and options, on the same machine, with the same versions and number of threads.
    All processes that load a folder share this memory as long as they do not write to it.

    Attributes:
        tensors: contiguous, such as packed weights, by a name of the backend's. Those that are the
            model's own weights are not written again.
        facts: such as what was measured or compared, as JSON-serializable data.
    """

    tensors: Mapping[str, torch.Tensor] = field(default_factory=dict)
    facts: Mapping[str, JsonValue] = field(default_factory=dict)
