"""Fake backends: one works, one has no engine on this host, one raises when called."""

import torch

from cpuaccel import Applied, Backend, Context, Form, Options


class _Fake(Backend[Options]):
    summary = "a fake"
    takes = Form.MODULE
    gives = Form.MODULE


class Absent(_Fake):
    name = "absent"
    requires = (("an-engine-of-tests>=2",),)

    def apply(self, model: torch.nn.Module, context: Context) -> Applied:
        raise NotImplementedError


class Faithful(_Fake):
    """Returns the module unchanged, so that there is no script to save."""

    name = "faithful"

    def apply(self, model: torch.nn.Module, context: Context) -> Applied:
        return Applied(model, evidence={"kept": 1})


class Brittle(_Fake):
    name = "brittle"

    def apply(self, model: torch.nn.Module, context: Context) -> Applied:
        class Breaking(torch.nn.Module):
            def forward(self, **inputs: torch.Tensor) -> object:
                if len(inputs["input_ids"]) == 5:
                    raise RuntimeError("five rows are too many")
                return model(**inputs)

        return Applied(Breaking())
