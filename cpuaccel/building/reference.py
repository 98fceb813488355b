"""The original model: the reference that outputs are compared with, and the fallback."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch

from cpuaccel.checks.hooks import Hook, callers_hooks, capturing_verdict, late_verdict, without
from cpuaccel.model.copying import shared_copy, unmerge_disabled_adapters
from cpuaccel.model.released_weights import ReleasedWeights
from cpuaccel.model.signature import Binder
from cpuaccel.model.state import WatchedState
from cpuaccel.model.weights import WatchedWeights
from cpuaccel.plugin.backend import Form
from cpuaccel.plugin.verdict import Verdict


class Reference:
    """The original model in eval mode, with its weights and its state watched.

    Attributes:
        original: the caller's model.
        eager: the original in eval mode: itself if it may be changed in place, otherwise a copy
            that shares its weights.
        binder: calls the original.
        weights: detects changed weights.
        state: detects changed hooks, attributes and configurations.
        released: weights of the original that only a variant holds.
    """

    def __init__(self, original: torch.nn.Module, *, inplace: bool) -> None:
        self.original = original
        self.weights = WatchedWeights(original)
        self.state = WatchedState(original)
        self.released = ReleasedWeights(original, self.weights.accept_moved)
        self._inplace = inplace
        self._hooks_of_steps: list[Hook] = []
        self._first_hooks = callers_hooks(original)
        self.reset()

    def reset(self) -> None:
        """Take the original as it is now."""
        self.released.restore()
        unmerge_disabled_adapters(self.original)
        self.eager = self.original.eval() if self._inplace else shared_copy(self.original)
        self.binder = Binder(self.original)
        self._hooks = without(callers_hooks(self.original), self._hooks_of_steps)
        self._evaluates = not any(module.training for module in self.original.modules())
        self.weights.reset()
        self.state.reset()

    def accept_changes(self) -> None:
        """Take what steps have changed in the original as unchanged."""
        self._hooks_of_steps += without(callers_hooks(self.original), self._hooks)
        self.weights.reset()
        self.state.reset()

    def changes(self) -> str:
        """Describe what has changed in the original since then; empty if nothing has."""
        if self.weights.changed():
            return "weights"
        return ", ".join(self.state.written()) if self.state.changed() else ""

    def run(self, inputs: Mapping[str, object]) -> object:
        """Call the copy in eval mode: what it keeps between calls stays out of the original."""
        self.released.restore_original()
        return self.binder.call(self.eager, inputs)

    def serve(self, inputs: Mapping[str, object]) -> object:
        """Answer a call: by the original itself if it is in eval mode, and keeps its state."""
        self.released.restore_original()
        return self.binder.call(self.evaluated, inputs)

    @property
    def evaluated(self) -> torch.nn.Module:
        """The original itself if it is in eval mode, otherwise the copy."""
        evaluates = self._evaluates and not self.original.training
        return self.original if evaluates else self.eager

    @contextmanager
    def restored_buffers(self) -> Iterator[None]:
        """Restore the buffers, which the copy shares, if the body changes them."""
        buffers = {buffer: buffer.clone() for buffer in self.original.buffers()}
        versions = {buffer: buffer._version for buffer in buffers if not buffer.is_inference()}
        try:
            yield
        finally:
            for buffer, version in versions.items():
                if buffer._version != version:
                    buffer.copy_(buffers[buffer])

    @property
    def late_hooks(self) -> Verdict:
        """No if hooks of the caller were registered after the model was optimized."""
        return late_verdict(without(self._hooks, self._first_hooks))

    def hooks_verdict(self, gives: Form) -> Verdict:
        """Check whether the hooks of the caller allow a step."""
        late = self.late_hooks
        return late if gives is Form.MODULE or not late else capturing_verdict(self._hooks)

    @property
    def floating_dtypes(self) -> set[torch.dtype]:
        """The dtypes of the floating-point parameters."""
        return {p.dtype for p in self.eager.parameters() if p.is_floating_point()}
