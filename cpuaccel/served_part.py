"""Parts of a model that its methods call by themselves, served as calls of a model are."""

import functools
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch

from cpuaccel.building.settings import BuildSettings
from cpuaccel.errors import SignatureError
from cpuaccel.model.redirected import redirected
from cpuaccel.model.signature import Inputs
from cpuaccel.model.torch_modes import inference
from cpuaccel.pipeline import Pipeline
from cpuaccel.planning.plan import make_plan
from cpuaccel.report import CallKey, Report
from cpuaccel.serving import Serving
from cpuaccel.variants import Variants


class ServedPart:
    """Calls of a part of a model, by variants of its own.

    Attributes:
        stand_in: what methods get instead of the part: it has the part's attributes.
    """

    def __init__(self, part: torch.nn.Module, pipeline: Pipeline, settings: BuildSettings) -> None:
        """Plan the pipeline for the part; variants are built at its first calls.

        Args:
            part: a module of the model.
            pipeline: of the model.
            settings: of the model.
        """
        # The model stays as it is, for its other parts and for fallbacks.
        settings = replace(settings, inplace=False, keep_original=True)
        self._variants = Variants(part, [make_plan(part, pipeline)], settings)
        self._serving = Serving(self._variants)
        functools.update_wrapper(self, part.forward)
        self.__signature__ = inspect.signature(part.forward)
        self.stand_in = redirected(part, self)

    def __call__(self, *args: object, **kwargs: object) -> object:
        """Call the part."""
        self._variants.refresh()
        reference = self._variants.reference
        try:
            inputs = reference.binder.bind(args, kwargs)
        except SignatureError:
            return reference.eager(*args, **kwargs)  # raises what the part raises
        with inference():
            return self._serve(inputs)

    def _serve(self, inputs: Inputs) -> object:
        return self._serving.serve(inputs)

    @property
    def report(self) -> Report:
        """What was built for the part, and what served its calls."""
        return self._variants.report


class ServedParts:
    """The parts of a model, each served from its first call on."""

    def __init__(self, of_model: Variants) -> None:
        self._of_model = of_model
        self._parts: dict[str, tuple[torch.nn.Module, ServedPart]] = {}

    def of(self, model: torch.nn.Module) -> "CalledParts":
        """The parts of a model, for one call of one of its methods."""
        return CalledParts(self, model)

    def get(self, name: str, part: torch.nn.Module) -> ServedPart:
        """Return what serves a part, which may have been replaced."""
        of_model = self._of_model
        of_model.reference.released.restore_original()
        known = self._parts.get(name)
        if known is None or known[0] is not part:
            served = ServedPart(part, of_model.plans[0].pipeline, of_model.settings)
            known = self._parts[name] = part, served
            of_model.report.parts[name] = served.report
        return known[1]


class CalledParts(Mapping[str, object]):
    """Stand-ins for the parts of a model, by name, and what served their calls.

    Parts without parts of their own are left as they are: a variant would not pay.

    Attributes:
        called: whether any was called.
        fell_back: why the original served such a call; empty if it served none.
    """

    def __init__(self, parts: ServedParts, model: torch.nn.Module) -> None:
        self._parts = parts
        self._model = model
        self._names = [
            name
            for name, part in model.named_children()
            if any(True for _ in part.children()) and _has_forward(part)
        ]
        self.called = False
        self.fell_back = ""

    def __getitem__(self, name: str) -> object:
        part = self._model._modules[name]  # the method may have replaced it
        if part is None or not _has_forward(part):
            return part
        call = functools.partial(self._call, name, part)
        functools.update_wrapper(call, part.forward)
        return redirected(part, call)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def _call(self, name: str, part: torch.nn.Module, /, *args: object, **kwargs: object) -> object:
        self.called = True
        served = self._parts.get(name, part)
        before = served.report.calls
        output = served(*args, **kwargs)
        for key in served.report.calls - before:
            if key != CallKey.OPTIMIZED:
                self.fell_back = served.report.fallbacks.get(key, key)
        return output


def _has_forward(part: torch.nn.Module) -> bool:
    """Whether a module can be called, and is not a script."""
    unimplemented = torch.nn.Module.forward is type(part).forward
    return not unimplemented and not isinstance(part, torch.jit.ScriptModule)
