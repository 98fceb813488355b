"""Backend ``inductor``: ``torch.compile`` with frozen weights and dynamic batch and length."""

import cpuaccel
from cpuaccel_plugins.inductor.backend import Inductor


@cpuaccel.hookimpl
def cpuaccel_backends() -> list[type[Inductor]]:
    return [Inductor]
