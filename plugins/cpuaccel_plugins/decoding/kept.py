"""Making the linears of a decoder, from the packed weights of an earlier build if there are any."""

import ctypes
from collections.abc import Callable, Sequence

import torch

from cpuaccel import BackendError, Kept
from cpuaccel_plugins.decoding.agreement import Checked
from cpuaccel_plugins.decoding.linear import FewRowsLinear
from cpuaccel_plugins.decoding.packed import Int4Linear, Int8Linear, PackedLinear

KINDS: dict[str, type[FewRowsLinear]] = {
    "floats": FewRowsLinear,
    "int8": Int8Linear,
    "int4": Int4Linear,
}

Choose = Callable[[str, torch.nn.Linear], type[FewRowsLinear]]
"""Chooses how a linear is computed, by its name in the model."""


class Linears:
    """Makes linears, and keeps what makes that slow."""

    def __init__(
        self, library: ctypes.CDLL, choose: Choose | None = None, kept: Kept | None = None
    ) -> None:
        """Pack weights as chosen, or take those that were kept; one of both is given."""
        self.library = library
        self._choose = choose
        self._kept = kept
        self._kinds: dict[str, str] = {}
        self._packed: dict[str, torch.Tensor] = {}

    @property
    def restores(self) -> bool:
        """Whether weights are those of an earlier build."""
        return self._kept is not None

    def make(self, name: str, linear: torch.nn.Linear) -> FewRowsLinear:
        """Make a linear.

        Args:
            name: in the model.
            linear: the original.

        Raises:
            BackendError: what was kept does not fit.
        """
        packed = None
        if self._kept is None:
            assert self._choose is not None
            kind = self._choose(name, linear)
        else:
            kinds = self._kept.facts.get("kinds")
            known = KINDS.get(str(kinds.get(name))) if isinstance(kinds, dict) else None
            if known is None:
                raise BackendError(f"nothing was kept of {name}")
            kind, packed = known, self._kept.tensors.get(name)
        if issubclass(kind, PackedLinear):
            if self.restores and packed is None:
                raise BackendError(f"the packed weight of {name} is missing")
            made: FewRowsLinear = kind(linear, self.library, packed)
            assert isinstance(made, PackedLinear)
            self._packed[name] = made.packed
        else:
            made = kind(linear, self.library)
        self._kinds[name] = next(word for word, one in KINDS.items() if one is kind)
        return made

    def check(self, parts: Sequence[Checked], compare: Callable[[], None]) -> None:
        """Find out which parts agree with the model's own code, or take what was found before.

        Raises:
            BackendError: what was kept does not fit.
        """
        if self._kept is None:
            compare()
            return
        agreed = self._kept.facts.get("agreed")
        if not isinstance(agreed, list) or len(agreed) != len(parts):
            raise BackendError("other parts were compared")
        for part, agrees in zip(parts, agreed):
            part.finish_checking(agreed=agrees is True)

    def keep(self, parts: Sequence[Checked]) -> Kept:
        """What to make the same linears of, with the parts that were checked."""
        agreed = [part.agrees for part in parts]
        return Kept(self._packed, {"kinds": {**self._kinds}, "agreed": [*agreed]})
