"""One model compiled by Inductor, and compiled again where a call needs it: seen and counted."""

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
"""What turns one of Dynamo's graphs into something to call: Inductor, or what builds on it."""


class CompiledCall:
    """Takes input tensors by name, and returns what the flat module returns.

    Dynamo guards every call; where a guard fails, such as on a length of one, it compiles
    again. That must happen under the same settings, or the new graph would
    quietly be a slow one, so it is done here.

    Attributes:
        evidence: what was compiled so far; recompilations are those that calls needed. The report
            holds this very mapping, and so tells of later ones, too.
    """

    def __init__(
        self, flat: torch.nn.Module, engine: str, compiler: Compiler, counters: Mapping[str, str]
    ) -> None:
        """Compile nothing yet.

        Args:
            flat: the model, as ``cpuaccel.flatten`` makes it.
            engine: the backend's name, for what is logged.
            compiler: what its graphs are compiled with.
            counters: Inductor's counters to tell of, and the names to tell them by.
        """
        self._engine = engine
        self._compiler = compiler
        self._counters = counters
        self.evidence: dict[str, int | float | str] = {
            "compilations": 0,
            "recompilations": 0,
            "frozen_weights": 0,
        }
        self._compiled: Callable[..., tuple[torch.Tensor, ...]] = torch.compile(  # type: ignore[call-overload]
            flat,
            backend=self._compile_graph,
            dynamic=True,
            fullgraph=True,  # a graph break would leave a part of the model to eager torch
            isolate_recompiles=True,  # which the overloads don't know
        )
        self._lock = threading.Lock()
        self._prepared: int | None = None
        self._unprepared: set[int] = set()

    def __call__(self, **inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Run the compiled model; compile it anew first where no graph fits the inputs."""
        try:
            return self._call(**inputs)
        except Exception:
            if threading.get_ident() not in self._unprepared:
                raise
        self._unprepared.discard(threading.get_ident())
        begun = time.perf_counter()
        answer = self.compile(inputs)
        self.evidence["recompilations"] = int(self.evidence["recompilations"]) + 1
        logger.warning(
            "%s compiled the model again, in %.1f s, for inputs of shape %s",
            self._engine,
            time.perf_counter() - begun,
            ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in inputs.items()),
        )
        return answer

    def _call(self, **inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Call with autocast's cache switched on: Dynamo guards even on that."""
        if torch.is_autocast_cache_enabled():
            return self._compiled(**inputs)
        torch.set_autocast_cache_enabled(True)
        try:
            return self._compiled(**inputs)
        finally:
            torch.set_autocast_cache_enabled(False)

    def compile(self, inputs: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Call under the settings to compile with, which are put back."""
        from torch._dynamo.utils import counters

        with self._lock, _compiling():
            before = {name: counters["inductor"][name] for name in self._counters}
            self._prepared = threading.get_ident()
            try:
                answer = self._call(**inputs)
            finally:
                self._prepared = None
            if self.evidence["compilations"] == 1:
                for name, told in self._counters.items():
                    self.evidence[told] = counters["inductor"][name] - before[name]
            return answer

    def _compile_graph(self, graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> object:
        """Dynamo's door to the compiler. Raises where Dynamo came here by itself, during a call."""
        if self._prepared != threading.get_ident():
            self._unprepared.add(threading.get_ident())
            raise RuntimeError("the settings to compile with are not in force")
        compiled = self._compiler(graph, inputs)
        self.evidence["compilations"] = int(self.evidence["compilations"]) + 1
        self.evidence["frozen_weights"] = sum(1 for _ in graph.parameters())
        return compiled


@contextmanager
def _compiling() -> Iterator[None]:
    """The settings under which Dynamo and Inductor compile, process-wide while it lasts.

    ``options={"freezing": True}`` is not enough: Dynamo hands the weights over as inputs unless the
    global setting is on while it traces, and Inductor then freezes nothing without a word.
    zentorch sets the pass that makes it zentorch and leaves it set, for Inductor, too.
    """
    import torch._dynamo
    import torch._inductor.config

    environment = dict(os.environ)
    inductor = torch._inductor.config
    try:
        with (
            torch.no_grad(),
            inductor.patch(freezing=True, joint_custom_post_pass=inductor.joint_custom_post_pass),
            torch._dynamo.config.patch(suppress_errors=False),  # True would run eagerly instead
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        os.environ.clear()
        os.environ.update(environment)
