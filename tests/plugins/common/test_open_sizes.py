"""What exporters need in order to leave batch and length open."""

import torch

import cpuaccel
from cpuaccel_plugins.common.open_sizes import at_least_two


def test_the_signature_keeps_its_own_example() -> None:
    signature = cpuaccel.Signature.from_inputs(torch.nn.ReLU(), torch.ones(1, 1))
    assert at_least_two(signature)["input"].shape == (2, 2)
    assert signature.tensor_inputs["input"].shape == (1, 1)
