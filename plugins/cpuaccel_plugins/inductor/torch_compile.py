"""Compiling a model before it is called, and making sure that it was compiled."""

from collections.abc import Mapping
from typing import ClassVar

import torch

import cpuaccel
from cpuaccel import Backend, BackendError, Form, Options, Signature
from cpuaccel_plugins.common.engine_errors import engine_errors, leave_out
from cpuaccel_plugins.inductor.compilation import CompiledCall, Compiler


class TorchCompileBackend(Backend[Options]):
    """A backend that compiles the whole model with ``torch.compile``, its weights frozen."""

    takes = Form.MODULE
    gives = Form.COMPILED
    needs_tensors = True
    excludes: ClassVar[Mapping[str, str]] = {
        "bettertransformer": "how many tokens are left without padding depends on the mask's "
        "values, which torch.compile can't put into one graph"
    }

    def compile(
        self,
        model: torch.nn.Module,
        signature: Signature,
        compiler: Compiler,
        counters: Mapping[str, str],
    ) -> CompiledCall:
        """Compile for several rows and for one, with frozen weights.

        Args:
            model: in eval mode; stays as it is.
            signature: how it is called.
            compiler: what Dynamo's graphs are compiled with.
            counters: Inductor's counters to tell of, and the names to tell them by.

        Raises:
            BackendError: the model can't be compiled as one graph, or was not compiled, or its
                weights were not frozen.
        """
        flat = cpuaccel.flatten(model, signature.tensors, signature.constants)
        call = CompiledCall(flat, self.name, compiler, counters)
        with engine_errors("torch.compile", model, leave_out(self.name)):
            for example in _examples(flat, signature):
                call.compile(example)
        evidence = call.evidence
        if evidence["compilations"] == 0:
            raise BackendError(
                "torch.compile ran the model eagerly: it is switched off in this process",
                f"Unset TORCH_COMPILE_DISABLE and TORCHDYNAMO_DISABLE, and leave {self.name} out "
                "where torch.compiler.set_stance forces eager",
            )
        weights = sum(1 for _ in model.parameters())
        if weights and evidence["frozen_weights"] == 0:
            raise BackendError(
                f"{self.name} froze none of the {weights} weights of {type(model).__name__}",
                leave_out(self.name),
            )
        return call


def _examples(flat: torch.nn.Module, signature: Signature) -> list[dict[str, torch.Tensor]]:
    """The example in several rows and in one: Dynamo makes a graph of its own for a size of one.

    Where the model takes only one of the two, or no batch is known, the example as it is.
    """
    example = signature.tensor_inputs
    flat(**example)  # Dynamo would guard on what a first call leaves behind
    rows = {name: example[name] for name in signature.axes.batch}
    if not rows or min(len(tensor) for tensor in rows.values()) == 0:
        return [example]
    # Copies: of a view Dynamo would guard on what it is a view of.
    one = {**example, **{name: tensor[:1].clone() for name, tensor in rows.items()}}
    several = {**example, **{name: torch.cat([tensor, tensor]) for name, tensor in rows.items()}}
    try:
        flat(**one)
        flat(**several)
    except Exception:  # the original is the judge of what may vary
        return [example]
    return [several, one]
