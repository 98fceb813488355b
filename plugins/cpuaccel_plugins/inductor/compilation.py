"""A model compiled by Inductor; recompilations are logged and counted."""

import logging
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch

logger = logging.getLogger("cpuaccel")

Compiler = Callable[[torch.fx.GraphModule, list[torch.Tensor]], object]
"""Compiles one of Dynamo's graphs into a callable."""


class CompiledCall:
    """Takes input tensors by name, and returns the output of the flat module.

    Dynamo checks guards in every call and recompiles if one fails, such as for a length of one.
    Recompilation happens here, under the same settings, so that the new graph is as fast.
    """

    def __init__(
        self, flat: torch.nn.Module, engine: str, compiler: Compiler, counters: Mapping[str, str]
    ) -> None:
        self._engine = engine
        self._compiler = compiler
        self._counters = counters  # Inductor's names to those in the evidence
        # The report holds this mapping, so it includes later recompilations.
        self.evidence: dict[str, int | float | str] = {
            "compilations": 0,
            "recompilations": 0,
            "frozen_weights": 0,
        }
        self._compiled: Callable[..., tuple[torch.Tensor, ...]] = torch.compile(  # type: ignore[call-overload]
            flat,
            backend=self._compile_graph,
            dynamic=True,
            fullgraph=True,  # fail on a graph break instead of running a part eagerly
            isolate_recompiles=True,  # missing in the overloads
        )
        self._lock = threading.Lock()
        self._compiling_thread: int | None = None
        self._unprepared: set[int] = set()

    def __call__(self, **inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Run the compiled model; recompile first if no graph fits the inputs."""
        if any(tensor.requires_grad for tensor in inputs.values()):  # Dynamo guards on it
            inputs = {name: tensor.detach() for name, tensor in inputs.items()}
        try:
            return self._call(**inputs)
        except Exception:
            if threading.get_ident() not in self._unprepared:
                raise
        self._unprepared.discard(threading.get_ident())
        begun = time.perf_counter()
        output = self.compile(inputs)
        self.evidence["recompilations"] = int(self.evidence["recompilations"]) + 1
        logger.warning(
            "%s: recompiled the model in %.1f s for inputs of shape %s",
            self._engine,
            time.perf_counter() - begun,
            ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in inputs.items()),
        )
        return output

    def _call(self, **inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Call with autocast's cache enabled, because Dynamo guards on it."""
        if torch.is_autocast_cache_enabled():
            return self._compiled(**inputs)
        torch.set_autocast_cache_enabled(True)
        try:
            return self._compiled(**inputs)
        finally:
            torch.set_autocast_cache_enabled(False)

    def compile(self, inputs: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Call under the settings for compilation, which are restored."""
        from torch._dynamo.utils import counters

        with self._lock, _compiling():
            before = {name: counters["inductor"][name] for name in self._counters}
            self._compiling_thread = threading.get_ident()
            try:
                output = self._call(**inputs)
            finally:
                self._compiling_thread = None
            if self.evidence["compilations"] == 1:
                for name, label in self._counters.items():
                    self.evidence[label] = counters["inductor"][name] - before[name]
            return output

    def _compile_graph(self, graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> object:
        """Compile for Dynamo. Raise if a call triggers this, outside of ``compile``."""
        if self._compiling_thread != threading.get_ident():
            self._unprepared.add(threading.get_ident())
            raise RuntimeError("compilation outside of CompiledCall.compile")
        compiled = self._compiler(graph, inputs)
        self.evidence["compilations"] = int(self.evidence["compilations"]) + 1
        self.evidence["frozen_weights"] = sum(1 for _ in graph.parameters())
        return compiled


@contextmanager
def _compiling() -> Iterator[None]:
    """Set the process-wide settings of Dynamo and Inductor for compilation, then restore them.

    ``options={"freezing": True}`` is not enough: unless the global setting is on during tracing,
    Dynamo passes the weights as inputs and Inductor silently freezes nothing. The custom pass is
    restored because zentorch sets it and leaves it set.
    """
    import torch._dynamo
    import torch._inductor.config

    environment = dict(os.environ)
    inductor = torch._inductor.config
    try:
        with (
            torch.no_grad(),
            inductor.patch(freezing=True, joint_custom_post_pass=inductor.joint_custom_post_pass),
            torch._dynamo.config.patch(suppress_errors=False),  # True would run eagerly
            warnings.catch_warnings(action="ignore"),
        ):
            yield
    finally:
        os.environ.clear()
        os.environ.update(environment)
