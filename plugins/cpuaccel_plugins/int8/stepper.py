"""``generate`` with weights in 8 bits."""

import torch

from cpuaccel import BackendError, Stepper
from cpuaccel_plugins.decoding.linear import FewRowsLinear, Int8Linear
from cpuaccel_plugins.decoding.model import make_stepper
from cpuaccel_plugins.int8.options import Int8Options
from cpuaccel_plugins.int8.selection import matches, require_matches


def stepper(model: torch.nn.Module, options: Int8Options) -> Stepper:
    """Quantize all linears but those of ``float_names``.

    Raises:
        BackendError: an option has no meaning for ``generate``, or a name matches nothing.
    """
    if options.max_error is not None:
        raise BackendError(
            f"max_error={options.max_error:g} is about calls of forward, not about generate",
            "Use float_names, and measure the quality on text",
        )
    names: list[tuple[str]] = []

    def choose(name: str, linear: torch.nn.Linear) -> type[FewRowsLinear]:
        names.append((name,))
        if matches((name,), options.float_names) or not bool(linear.weight.isfinite().all()):
            return FewRowsLinear
        return Int8Linear

    made = make_stepper(model, choose)
    require_matches(options.float_names, names)
    return made
