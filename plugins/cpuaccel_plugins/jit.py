"""Backend ``jit``: TorchScript tracing and freezing."""

import inspect
import warnings

import torch

import cpuaccel
from cpuaccel import Applied, Backend, BackendError, Context, Form, Host, Verdict
from cpuaccel_plugins.common.engine_errors import engine_errors, leave_out
from cpuaccel_plugins.common.fusions import count_fusions
from cpuaccel_plugins.common.ipex_switches import require_ipex_fusions
from cpuaccel_plugins.common.properties import unread_properties

WARM_UP_CALLS = 2
"""The executor profiles in the first call and compiles in the second."""


class JitOptions(cpuaccel.Options):
    """Options of ``jit``.

    Attributes:
        freeze: inline the weights as constants and fold constant expressions.
    """

    freeze: bool = True


class Jit(Backend[JitOptions]):
    """Traces the model with ``torch.jit.trace`` and freezes it with ``torch.jit.freeze``."""

    name = "jit"
    summary = "TorchScript: trace, freeze, warm up; saved scripts load without cpuaccel"
    takes = Form.MODULE
    gives = Form.SCRIPT
    needs_tensors = True
    requires = (("torch>=1.13",),)
    Options = JitOptions

    def check(self, host: Host) -> Verdict:
        """Require a Python version that TorchScript supports."""
        if tuple(map(int, host.python.split(".")[:2])) >= (3, 14):
            return Verdict.no(
                f"TorchScript does not support Python {host.python}", "Use Python 3.13 or older"
            )
        return super().check(host)

    def apply(self, model: torch.nn.Module, context: Context) -> Applied:
        """Trace, freeze and warm up."""
        if not torch._C._get_graph_executor_optimize():
            raise BackendError(
                "TorchScript's optimizations are disabled in this thread",
                "Call optimize outside torch.jit.optimized_execution(False)",
            )
        switches = require_ipex_fusions(model)
        signature = context.signature
        flat = cpuaccel.flatten(model, signature.tensors, signature.constants)
        example = signature.tensor_inputs
        # torch < 2.0 binds by position only: the flat module has exactly these parameters.
        by_name = "example_kwarg_inputs" in inspect.signature(torch.jit.trace).parameters
        # The trace's warnings: cpuaccel compares outputs to find what is frozen.
        with warnings.catch_warnings(action="ignore"):
            with engine_errors("torch.jit.trace", model, leave_out(self.name)):
                inputs: dict[str, object] = {"example_inputs": tuple(example.values())}
                if by_name:
                    inputs = {"example_kwarg_inputs": example}
                with unread_properties(flat):
                    script = torch.jit.trace(flat, **inputs, strict=False, check_trace=False)
                if not isinstance(script, torch.jit.ScriptModule):
                    raise BackendError(
                        "torch.jit.trace returned no script: TorchScript is disabled",
                        "Unset PYTORCH_JIT",
                    )
                if self.options.freeze:
                    script = torch.jit.freeze(script.eval())
            with engine_errors("calling the script", model, leave_out(self.name)):
                for _ in range(WARM_UP_CALLS):
                    script(**example)
        fusions = count_fusions(torch.jit.last_executed_optimized_graph())
        return Applied(
            script,
            evidence={
                "graph_nodes": sum(1 for _ in script.inlined_graph.nodes()),
                "frozen": "yes" if self.options.freeze else "no",
                "inputs_bound": "by name" if by_name else "by position",
                "fusions": sum(fusions.values()),
                **fusions,
                **switches,
            },
        )


@cpuaccel.hookimpl
def cpuaccel_backends() -> list[type[Jit]]:
    return [Jit]
