"""Backends that do one thing right or wrong, for a ``MaskedEncoder``."""

import copy
import os
from collections.abc import Callable, Mapping

import torch

import cpuaccel
from cpuaccel import Applied, Backend, Context, Form, Host, Options, Signature, Verdict
from cpuaccel.testing import Encoded, MaskedEncoder

Call = Callable[..., object]


class Wrapped(torch.nn.Module):
    """A module whose forward calls a function that may change the output."""

    def __init__(self, model: torch.nn.Module, change: Callable[[Call, dict[str, object]], object]):
        super().__init__()
        self.model = model
        self.change = change

    def forward(self, **inputs: object) -> object:
        return self.change(self.model, inputs)


class Fake(Backend[Options]):
    """Base of the fakes: takes effect and doesn't change the output."""

    summary = "a fake"
    takes = Form.MODULE
    gives = Form.MODULE

    def change(self, model: Call, inputs: dict[str, object]) -> object:
        return model(**inputs)

    def apply(self, model: torch.nn.Module, context: Context) -> Applied:
        return Applied(Wrapped(model, self.change), evidence={"wrapped": 1})


class Faithful(Fake):
    name = "faithful"


class Copying(Fake):
    """Has its own weights, like engines that repack them."""

    name = "copying"

    def apply(self, model: torch.nn.Module, context: Context) -> Applied:
        return super().apply(copy.deepcopy(model), context)


class Opaque(Fake):
    """Returns a compiled model: tensors by name in, a flat tuple out."""

    name = "opaque"
    gives = Form.COMPILED

    def apply(self, model: torch.nn.Module, context: Context) -> Applied:
        signature = context.signature
        flat = cpuaccel.flatten(model, signature.tensors, signature.constants)
        return Applied(flat, evidence={"flattened": 1})


class Changing(Fake):
    name = "changing"

    def change(self, model: Call, inputs: dict[str, object]) -> object:
        states, pooled = encoded(model(**inputs))
        return Encoded(states, pooled * 1.5)


class MaskBlind(Fake):
    name = "mask_blind"

    def change(self, model: Call, inputs: dict[str, object]) -> object:
        return model(**{name: value for name, value in inputs.items() if "mask" not in name})


class OtherType(Fake):
    name = "other_type"

    def change(self, model: Call, inputs: dict[str, object]) -> object:
        return [model(**inputs)[0]]  # type: ignore[index]


class _Frozen(Fake):
    axis: int

    def apply(self, model: torch.nn.Module, context: Context) -> Applied:
        ids = context.signature.inputs["input_ids"]
        assert isinstance(ids, torch.Tensor)
        built_for = ids.shape[self.axis]

        def change(model: Call, inputs: dict[str, object]) -> object:
            called_with = inputs["input_ids"]
            assert isinstance(called_with, torch.Tensor)
            if called_with.shape[self.axis] == built_for:
                return model(**inputs)
            states, pooled = encoded(model(**inputs))
            return Encoded(states + 1, pooled + 1)  # wrong without an error, like a frozen trace

        return Applied(Wrapped(model, change), evidence={"built_for": built_for})


class FrozenBatch(_Frozen):
    name = "frozen_batch"
    gives = Form.COMPILED
    axis = 0


class FrozenLength(_Frozen):
    name = "frozen_length"
    gives = Form.COMPILED
    axis = 1


class FailingApply(Fake):
    name = "failing_apply"

    def apply(self, model: torch.nn.Module, context: Context) -> Applied:
        raise RuntimeError("the engine has no such kernel")


class VerboseApply(Fake):
    name = "verbose_apply"

    def apply(self, model: torch.nn.Module, context: Context) -> Applied:
        raise cpuaccel.BackendError(
            "the engine says:\n  no such kernel\n" + "at a place\n" * 100, "Use another engine"
        )


class NothingFaster(Fake):
    name = "nothing_faster"

    def apply(self, model: torch.nn.Module, context: Context) -> Applied:
        raise cpuaccel.BackendError("nothing is faster here", "Use another engine", skipped=True)


class RefusingApply(Fake):
    name = "refusing_apply"

    def apply(self, model: torch.nn.Module, context: Context) -> Applied:
        raise cpuaccel.BackendError("the model has an odd size", "Use an even size")


class _Later(Fake):
    """Right while it is verified, wrong on token 49, which no example has."""

    def change(self, model: Call, inputs: dict[str, object]) -> object:
        ids = inputs["input_ids"]
        assert isinstance(ids, torch.Tensor)
        output = encoded(model(**inputs))
        return self.wrong(output) if bool((ids == 49).any()) else output

    def wrong(self, output: Encoded) -> object:
        raise NotImplementedError


class RaisingLater(_Later):
    name = "raising_later"

    def wrong(self, output: Encoded) -> object:
        raise RuntimeError("illegal instruction, nearly")


class NanLater(_Later):
    name = "nan_later"

    def wrong(self, output: Encoded) -> object:
        return Encoded(output.states, output.pooled * float("nan"))


class Meddling(Fake):
    """Changes global settings and leaves them changed."""

    name = "meddling"

    def apply(self, model: torch.nn.Module, context: Context) -> Applied:
        os.environ["CPUACCEL_TEST_MEDDLED"] = "1"
        torch.set_num_threads(torch.get_num_threads() + 1)
        torch.set_default_dtype(torch.float64)
        torch.set_float32_matmul_precision("medium")
        torch.manual_seed(1)
        return super().apply(model, context)


class RaisingCheck(Fake):
    name = "raising_check"

    def check(self, host: Host) -> Verdict:
        raise KeyError("no such package")


class RaisingAccepts(Fake):
    name = "raising_accepts"

    def accepts(self, model: Call, signature: Signature) -> Verdict:
        raise AttributeError("no config")


class Unavailable(Fake):
    name = "unavailable"
    requires = (("an-engine-of-tests>=2",),)


class Refusing(Fake):
    name = "refusing"

    def accepts(self, model: Call, signature: Signature) -> Verdict:
        return Verdict.no("the model has no layers of the kind", "Use another model")


class ScriptTaking(Fake):
    name = "script_taking"
    takes = Form.SCRIPT
    gives = Form.SCRIPT


def encoded(output: object) -> Encoded:
    assert isinstance(output, Encoded)
    return output


def same(output: object, expected: object) -> bool:
    """Whether two outputs of ``MaskedEncoder`` are equal in type and values."""
    return type(output) is Encoded and all(map(torch.equal, output, encoded(expected)))


def batch(size: int = 2, length: int = 12, *, first: int | None = None) -> dict[str, torch.Tensor]:
    """Inputs of ``MaskedEncoder``, without token 49 unless ``first`` is 49."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, 49, (size, length), generator=generator)
    if first is not None:
        ids[0, 0] = first
    return {"input_ids": ids, "attention_mask": torch.ones(size, length, dtype=torch.long)}


def padded(inputs: Mapping[str, torch.Tensor], count: int = 4) -> dict[str, torch.Tensor]:
    """Pad the first row on the right."""
    mask = inputs["attention_mask"].clone()
    mask[0, -count:] = 0
    return {**inputs, "attention_mask": mask}


def encoder() -> MaskedEncoder:
    return MaskedEncoder.seeded()
