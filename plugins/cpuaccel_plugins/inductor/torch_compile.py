"""The base of backends that use ``torch.compile``."""

import os
import shlex
import shutil
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import torch

import cpuaccel
from cpuaccel import Backend, BackendError, Form, Options, Signature, Verdict
from cpuaccel_plugins.common.engine_errors import engine_errors, leave_out
from cpuaccel_plugins.inductor.compilation import CompiledCall, Compiler


class TorchCompileBackend(Backend[Options]):
    """A backend that compiles the whole model with ``torch.compile``, its weights frozen."""

    takes = Form.MODULE
    gives = Form.COMPILED
    needs_tensors = True
    excludes: ClassVar[Mapping[str, str]] = {
        "bettertransformer": "the number of tokens without padding depends on the mask's values, "
        "which torch.compile can't put into one graph"
    }

    def compile(
        self,
        model: torch.nn.Module,
        signature: Signature,
        compiler: Compiler,
        counters: Mapping[str, str],
    ) -> CompiledCall:
        """Compile one graph for several rows and one for a single row, with frozen weights."""
        flat = cpuaccel.flatten(model, signature.tensors, signature.constants)
        call = CompiledCall(flat, self.name, compiler, counters)
        with engine_errors("torch.compile", model, leave_out(self.name)):
            for example in _examples(flat, signature):
                call.compile(example)
        evidence = call.evidence
        if evidence["compilations"] == 0:
            raise BackendError(
                "torch.compile ran the model eagerly: it is disabled in this process",
                "Unset TORCH_COMPILE_DISABLE and TORCHDYNAMO_DISABLE, and don't use "
                f"torch.compiler.set_stance('force_eager') with {self.name}",
            )
        weights = sum(1 for _ in model.parameters())
        if weights and evidence["frozen_weights"] == 0:
            raise BackendError(
                f"{self.name} froze none of the {weights} weights of {type(model).__name__}",
                leave_out(self.name),
            )
        return call


def _examples(flat: torch.nn.Module, signature: Signature) -> list[dict[str, torch.Tensor]]:
    """Return the example with several rows and one, because Dynamo specializes a size of one."""
    example = signature.tensor_inputs
    flat(**example)  # Dynamo guards on attributes that a first call sets
    rows = {name: example[name] for name in signature.axes.batch}
    if not rows or min(len(tensor) for tensor in rows.values()) == 0:
        return [example]
    # Copies: Dynamo guards on the base of a view.
    one = {**example, **{name: tensor[:1].clone() for name, tensor in rows.items()}}
    several = {**example, **{name: torch.cat([tensor, tensor]) for name, tensor in rows.items()}}
    try:
        flat(**one)
        flat(**several)
    except Exception:  # the original decides which sizes are allowed
        return [example]
    return [several, one]


def toolchain() -> Verdict:
    """Check that C++ kernels can be compiled here."""
    compiler = shlex.split(os.environ.get("CXX", "")) or ["g++"]
    if shutil.which(compiler[0]) is None:
        return Verdict.no(
            f"Inductor compiles C++ kernels, but {compiler[0]} is not on PATH",
            "Install a C++ compiler (on Debian: apt install g++), or set CXX",
        )
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        return Verdict.no(
            "Inductor compiles C++ kernels, but Python's header Python.h is missing",
            "Install Python's development files (on Debian: apt install python3-dev)",
        )
    return Verdict.yes()
