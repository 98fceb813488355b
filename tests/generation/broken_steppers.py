"""Backends whose steppers break one rule of the conformance kit, and one that breaks none."""

import copy
import threading
import time
from typing import Any, ClassVar

import torch

import cpuaccel
from cpuaccel import BackendError, Host, Stepper, Unload, Verdict
from tests.fake_backends import Fake

BEYOND_THE_PROOF = 30
"""Tokens in a cache: more than a prompt, a step or a chunk of the proof sees."""


class FaithfulStepping(Fake):
    """Steps by a copy of the original."""

    name = "faithful_stepping"
    generates = True

    def stepper(self, model: torch.nn.Module, host: Host, unload: Unload | None = None) -> Stepper:
        copied = cpuaccel.shared_copy(model)
        read = sum(p.numel() * p.element_size() for p in model.parameters())
        for parameter in model.parameters() if unload is not None else ():
            assert unload is not None
            unload(parameter)
        return Stepper(lambda **inputs: self.step(copied, inputs), read, {"copied": 1})

    def step(self, model: Any, inputs: dict[str, Any]) -> object:
        return model(**inputs)


class Forgetting(FaithfulStepping):
    """Is wrong for long texts."""

    name = "forgetting"

    def step(self, model: Any, inputs: dict[str, Any]) -> object:
        output = model(**inputs)
        if inputs["past_key_values"].get_seq_length() > BEYOND_THE_PROOF:
            output.logits[..., 7] += 100
        return output


class SingleRowed(FaithfulStepping):
    """Raises for more rows than the proof has."""

    name = "single_rowed"

    def step(self, model: Any, inputs: dict[str, Any]) -> object:
        if len(inputs["input_ids"]) > 3:
            raise ValueError("too many rows")
        return model(**inputs)


class ChunkBlind(FaithfulStepping):
    """Returns the logits of the first of several tokens for all of them, after a long text."""

    name = "chunk_blind"

    def step(self, model: Any, inputs: dict[str, Any]) -> object:
        cache, tokens = inputs["past_key_values"], inputs["input_ids"].shape[1]
        output = model(**inputs)
        if cache.get_seq_length() > BEYOND_THE_PROOF and tokens > 1:
            output.logits[:, 1:] = output.logits[:, :1]
        return output


class Negating(FaithfulStepping):
    """Keeps values in the cache in a form of its own, which the original doesn't know."""

    name = "negating"

    def step(self, model: Any, inputs: dict[str, Any]) -> object:
        layers = inputs["past_key_values"].layers
        self._negate(layers)
        output = model(**inputs)
        self._negate(layers)
        return output

    @staticmethod
    def _negate(layers: list[Any]) -> None:
        for layer in layers:
            if layer.get_seq_length():
                layer.values = -layer.values


class Crossing(FaithfulStepping):
    """Keeps the inputs of a call where a call of another thread overwrites them."""

    name = "crossing_stepper"
    inputs: ClassVar[dict[str, Any]] = {}

    def step(self, model: Any, inputs: dict[str, Any]) -> object:
        type(self).inputs = inputs
        if threading.current_thread() is not threading.main_thread():
            time.sleep(0.002)
        return model(**type(self).inputs)


class Remembering(FaithfulStepping):
    """Steps by the first model that it got."""

    name = "remembering_stepper"
    models: ClassVar[list[torch.nn.Module]] = []

    def stepper(self, model: torch.nn.Module, host: Host, unload: Unload | None = None) -> Stepper:
        self.models.append(model)
        return super().stepper(self.models[0], host, unload)


class Copying(FaithfulStepping):
    """Steps by weights that it once copied, for each architecture."""

    name = "copying_stepper"
    weights: ClassVar[dict[type, dict[str, torch.Tensor]]] = {}

    def stepper(self, model: torch.nn.Module, host: Host, unload: Unload | None = None) -> Stepper:
        copied = copy.deepcopy(model)
        known = self.weights.setdefault(type(model), copied.state_dict())
        copied.load_state_dict(known, assign=True)
        return Stepper(copied, super().stepper(model, host).bytes_per_step, {"copied": 1})


class OneCache(FaithfulStepping):
    """Goes on with the cache of the latest prefill, whose it may be."""

    name = "one_cache"
    latest: ClassVar[list[Any]] = []

    def step(self, model: Any, inputs: dict[str, Any]) -> object:
        cache = inputs["past_key_values"]
        if cache.get_seq_length() == 0:
            self.latest[:] = [cache]
        output = model(**inputs)
        if self.latest and self.latest[0] is not cache:
            output.logits[...] = output.logits.flip(-1)
        return output


class OneBuffer(FaithfulStepping):
    """Writes the logits of each step into the same memory."""

    name = "one_buffer"
    buffers: ClassVar[dict[int, torch.Tensor]] = {}

    def step(self, model: Any, inputs: dict[str, Any]) -> object:
        output = model(**inputs)
        if output.logits.shape[:2] == (1, 1):
            buffer = self.buffers.setdefault(id(model), torch.empty_like(output.logits))
            output.logits = buffer.copy_(output.logits)
        return output


class Hooking(FaithfulStepping):
    name = "hooking_stepper"

    def stepper(self, model: torch.nn.Module, host: Host, unload: Unload | None = None) -> Stepper:
        model.register_forward_hook(lambda *_: None)
        return super().stepper(model, host, unload)


class Spoiling(FaithfulStepping):
    """Writes to the weights."""

    name = "spoiling_stepper"

    def stepper(self, model: torch.nn.Module, host: Host, unload: Unload | None = None) -> Stepper:
        for parameter in model.parameters():
            parameter.mul_(1.0001)
        return super().stepper(model, host, unload)


class Emptying(FaithfulStepping):
    """Empties weights instead of leaving this to ``unload``."""

    name = "emptying"

    def stepper(self, model: torch.nn.Module, host: Host, unload: Unload | None = None) -> Stepper:
        made = super().stepper(copy.deepcopy(model), host)
        for parameter in model.parameters() if unload is not None else ():
            parameter.data = torch.zeros_like(parameter)
        return made


class UnloadingCopies(FaithfulStepping):
    name = "unloading_copies"

    def stepper(self, model: torch.nn.Module, host: Host, unload: Unload | None = None) -> Stepper:
        if unload is not None:
            unload(next(model.parameters()).clone())
        return super().stepper(model, host)


class Silent(FaithfulStepping):
    name = "silent_stepper"

    def stepper(self, model: torch.nn.Module, host: Host, unload: Unload | None = None) -> Stepper:
        return Stepper(super().stepper(model, host, unload).forward, 0)


class Crashing(FaithfulStepping):
    """Looks for the layers of Llama in every model."""

    name = "crashing"

    def stepper(self, model: torch.nn.Module, host: Host, unload: Unload | None = None) -> Stepper:
        assert isinstance(model.get_submodule("model.layers.0.self_attn"), torch.nn.Module)
        return super().stepper(model, host, unload)


class Curt(FaithfulStepping):
    name = "curt_stepper"

    def check_generation(self, host: Host) -> Verdict:
        return Verdict.no("not supported")

    def stepper(self, model: torch.nn.Module, host: Host, unload: Unload | None = None) -> Stepper:
        raise BackendError("not supported.")


class Undeclared(FaithfulStepping):
    name = "undeclared"
    generates = False
