"""Whether a host computes a model in bfloat16 fast and right."""

import torch

from cpuaccel.plugin.host import Host
from cpuaccel.plugin.verdict import Verdict

AMX = "amx_bf16"
"""The processor flag with which oneDNN computes some convolutions wrongly."""


def bf16_verdict(model: torch.nn.Module, host: Host) -> Verdict:
    """Ask the host, then look for convolutions that its oneDNN computes wrongly.

    With AMX a three-dimensional convolution in bfloat16 with a stride over 1 returns values such as
    1e36 where its output is 1 wide (pytorch#169688), which depends on the size of each call.
    """
    verdict = host.bf16()
    if not verdict or AMX not in host.isa:
        return verdict
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Conv3d) and max(module.stride) > 1:
            return Verdict.no(
                f"{name or type(module).__name__} is a Conv3d with stride {tuple(module.stride)}, "
                "which oneDNN computes wrongly in bfloat16 on AMX for some sizes (pytorch#169688)",
                "Use dtype=float32 for this model",
            )
    return verdict
