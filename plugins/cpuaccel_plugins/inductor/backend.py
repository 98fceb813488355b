"""What ``inductor`` asks for, and applying it."""

import os
import shlex
import shutil
import sysconfig
from collections.abc import Callable
from pathlib import Path

import torch

import cpuaccel
from cpuaccel import (
    Applied,
    Backend,
    BackendError,
    Context,
    Form,
    Host,
    Options,
    Signature,
    Verdict,
)

from .compilation import CompiledCall

WITHOUT = "Leave inductor out for this model"


class Inductor(Backend[Options]):
    """Compiles the whole model with ``torch.compile`` and Inductor, its weights frozen.

    Frozen weights and dynamic shapes together are the fast way in float32: only then are linears
    oneDNN's, packed and fused; with static shapes they are MKL's, and without freezing unpacked.
    """

    name = "inductor"
    summary = "torch.compile: C++ kernels made for this model, with oneDNN's packed linears"
    takes = Form.MODULE
    gives = Form.COMPILED
    requires = (("torch>=2.13",),)  # the first whose compiled entries are this call's own

    def check(self, host: Host) -> Verdict:
        """Look for the compiler and the headers that Inductor's kernels are built with."""
        verdict = super().check(host)
        if not verdict:
            return verdict
        compiler = shlex.split(os.environ.get("CXX", "")) or ["g++"]
        if shutil.which(compiler[0]) is None:
            return Verdict.no(
                f"Inductor compiles C++ kernels, and there is no {compiler[0]} on this PATH",
                "Install a C++ compiler (on Debian: apt install g++), or name one in CXX",
            )
        if not Path(sysconfig.get_path("include"), "Python.h").exists():
            return Verdict.no(
                "Inductor compiles C++ kernels, and this Python's header Python.h is missing",
                "Install Python's development files (on Debian: apt install python3-dev)",
            )
        return Verdict.yes()

    def accepts(self, model: Callable[..., object], signature: Signature) -> Verdict:
        """There has to be a tensor to compute on."""
        if not signature.tensors:
            return Verdict.no(
                "none of the inputs is a tensor, so there is nothing to compile",
                "Pass the inputs as tensors, or leave inductor out",
            )
        return Verdict.yes()

    def apply(self, model: torch.nn.Module, context: Context) -> Applied:
        """Compile, and see that it was compiled and its weights frozen."""
        signature = context.signature
        flat = cpuaccel.flatten(model, signature.tensors, signature.constants)
        call = CompiledCall(flat)
        try:
            for example in _examples(flat, signature):
                call.compile(example)
        except BackendError:
            raise
        except Exception as error:  # Dynamo and Inductor raise much, and a model's code the rest
            raise BackendError(
                f"torch.compile can't take {type(model).__name__} as one graph: "
                f"{type(error).__name__}: {_first_line(error)}",
                WITHOUT,
            ) from error
        evidence = call.evidence
        if evidence["compilations"] == 0:
            raise BackendError(
                "torch.compile ran the model eagerly: it is switched off in this process",
                "Unset TORCH_COMPILE_DISABLE and TORCHDYNAMO_DISABLE, and leave inductor out where "
                "torch.compiler.set_stance forces eager",
            )
        weights = sum(1 for _ in model.parameters())
        if weights and evidence["frozen_weights"] == 0:
            raise BackendError(
                f"Inductor froze none of the {weights} weights of {type(model).__name__}", WITHOUT
            )
        return Applied(call, evidence=evidence)


def _examples(flat: torch.nn.Module, signature: Signature) -> list[dict[str, torch.Tensor]]:
    """The example in several rows and in one: Dynamo makes a graph of its own for a size of one.

    Where the model takes only one of the two, or no batch is known, the example as it is.
    """
    example = {n: v for n, v in signature.inputs.items() if isinstance(v, torch.Tensor)}
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


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "no message")
