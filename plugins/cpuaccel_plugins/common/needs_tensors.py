"""A model that is called without any tensor, which no engine can follow."""

from cpuaccel import Signature, Verdict


def needs_tensors(signature: Signature, backend: str, lacking: str) -> Verdict:
    """A no where none of the inputs is a tensor.

    Args:
        signature: how the model is called.
        backend: the name of the one that asks.
        lacking: what there is without tensors, such as ``nothing to trace``.
    """
    if signature.tensors:
        return Verdict.yes()
    return Verdict.no(
        f"none of the inputs is a tensor, so there is {lacking}",
        f"Pass the inputs as tensors, or leave {backend} out",
    )
