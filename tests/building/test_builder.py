"""Steps are applied in order, each with what it needs."""

import torch

import cpuaccel
from cpuaccel import Applied, Context, Host, Signature, Verdict
from cpuaccel.model.flatten import FlatModule
from tests.conftest import Offer
from tests.fake_backends import Faithful, Fake, Opaque, Wrapped, batch, encoder, same


def test_steps_are_applied_in_the_users_order(offer: Offer) -> None:
    class Second(Faithful):
        name = "second"

    offer(Faithful, Second, Opaque)
    fast = cpuaccel.optimize(encoder(), ["second", "faithful", "opaque"], example_inputs=batch())
    assert fast.report.applied == ("second", "faithful", "opaque")
    (variant,) = fast.variants
    assert isinstance(variant.model, FlatModule)
    assert isinstance(variant.model.model, Wrapped)
    assert isinstance(variant.model.model.model, Wrapped)


def test_a_compiled_callable_returns_the_originals_output_type(offer: Offer) -> None:
    offer(Opaque)
    model, inputs = encoder(), batch()
    fast = cpuaccel.optimize(model, ["opaque"], example_inputs=inputs, strict=True)
    assert same(fast(**inputs), model(**inputs))


def test_a_step_from_module_to_module_is_applied_once_for_all_variants(offer: Offer) -> None:
    applied: list[str] = []

    class Once(Fake):
        name = "once"

        def apply(self, model: torch.nn.Module, context: Context) -> Applied:
            applied.append("once")
            return super().apply(model, context)

    offer(Once, Opaque)
    fast = cpuaccel.optimize(encoder(), ["once", "opaque"], example_inputs=batch(), strict=True)
    fast(input_ids=batch()["input_ids"])
    assert len(fast.report.variants) == 2
    assert applied == ["once"]


def test_a_backend_receives_the_host_the_signature_and_the_dtype(offer: Offer) -> None:
    seen: list[object] = []

    class Recording(Fake):
        name = "recording"

        def check(self, host: Host) -> Verdict:
            seen.append(host)
            return super().check(host)

        def accepts(self, model: object, signature: Signature) -> Verdict:
            seen.append(signature.tensors)
            return Verdict.yes()

        def apply(self, model: torch.nn.Module, context: Context) -> Applied:
            seen.append((context.host, context.dtype, context.inplace, model.training))
            return super().apply(model, context)

    offer(Recording)
    host, names = cpuaccel.host(), ("input_ids", "attention_mask")
    cpuaccel.optimize(encoder().train(), ["recording"], example_inputs=batch())
    assert seen[0] is host
    assert seen[1] == names
    assert seen[-1] == (host, None, False, False)


def test_inplace_passes_the_callers_model_to_backends(offer: Offer) -> None:
    seen: list[bool] = []

    class Replacing(Fake):
        name = "replacing"

        def apply(self, model: torch.nn.Module, context: Context) -> Applied:
            seen.append(context.inplace)
            return Applied(model, evidence={"same": 1})

    offer(Replacing)
    model = encoder()
    fast = cpuaccel.optimize(model, ["replacing"], example_inputs=batch(), inplace=True)
    assert seen == [True]
    assert fast.variants[0].model is model
