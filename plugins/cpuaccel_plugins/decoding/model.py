"""A decoder model whose few rows are computed by the kernels."""

import ctypes
import re
from collections.abc import Mapping, Sequence

import torch
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache
from transformers.pytorch_utils import Conv1D

import cpuaccel
from cpuaccel import BackendError, Kept, Stepper, Unload
from cpuaccel_plugins.aten_graph.memory import use_huge_pages
from cpuaccel_plugins.decoding.agreement import Checked
from cpuaccel_plugins.decoding.chain import Chain, can_be_chained
from cpuaccel_plugins.decoding.experts import FewRowsExperts, as_linear, is_experts
from cpuaccel_plugins.decoding.kept import Choose, Linears
from cpuaccel_plugins.decoding.layer import FusedForward, Positions
from cpuaccel_plugins.decoding.library import KernelsError, kernels
from cpuaccel_plugins.decoding.linear import FewRowsLinear
from cpuaccel_plugins.decoding.parts import find_parts, runs_its_class
from cpuaccel_plugins.decoding.source_layers.fuse import fuse_layers
from cpuaccel_plugins.decoding.source_layers.logits_bias import let_head_add_bias
from cpuaccel_plugins.decoding.structures import FLOATS

SAMPLE = torch.tensor([[1, 2, 3]])
"""Tokens on which the fused layers are compared with the model's own code."""


ONCE = re.compile(
    r"encoder_attn\.[kv]_proj$|EncDecAttention\.[kv]$|crossattention\.self\.(key|value)$"
)
"""Names of linears that run once in a ``generate``: for keys and values of an encoder's output."""


def make_stepper(model: torch.nn.Module, choose: Choose, unload: Unload | None) -> Stepper:
    """Copy a decoder, sharing its weights, and let the kernels compute its linears and layers.

    Args:
        model: the decoder.
        choose: chooses how each linear is computed.
        unload: called with weights that the kernels have in another form.

    Raises:
        BackendError: the kernels can't be compiled here, or the model has no linears.
    """
    return _make_stepper(model, Linears(_kernels(), choose), unload)


def restore_stepper(model: torch.nn.Module, kept: Kept) -> Stepper:
    """Do the same with what an earlier stepper ``kept``.

    Raises:
        BackendError: the kernels can't be compiled here, or what was kept does not fit the model.
    """
    return _make_stepper(model, Linears(_kernels(), kept=kept), None)


def _kernels() -> ctypes.CDLL:
    try:
        return kernels()
    except KernelsError as error:
        raise BackendError(
            f"the kernels for generation can't be used: {error}",
            "Install g++, or set CXX to a C++ compiler with OpenMP",
            skipped=True,
        ) from error


def _make_stepper(model: torch.nn.Module, making: Linears, unload: Unload | None) -> Stepper:
    library = making.library
    copied = cpuaccel.shared_copy(model)
    assert isinstance(copied, PreTrainedModel)
    let_head_add_bias(copied)
    linears, experts = _replace(copied, making, library, unload)
    if not linears and not experts:
        raise BackendError(f"{type(model).__name__} has no linears", "Leave the step out")
    assert isinstance(model, PreTrainedModel)
    positions = Positions()
    fused: dict[torch.nn.Module, FusedForward] = {}
    # The encoder isn't there to compare layers that read its output.
    for layer in () if model.config.is_encoder_decoder else copied.modules():
        parts = find_parts(layer)
        if parts is not None:
            fused[layer] = FusedForward(layer, parts, library, positions)
            layer.forward = fused[layer]
    checked = [*fused.values(), *experts]
    making.check(checked, lambda: _check(copied, checked))
    _chain(copied, fused, library, positions)
    over_source = fuse_layers(copied, _stepped_modules(copied), library)
    chosen = getattr(model.config.get_text_config(decoder=True), "num_experts_per_tok", 1)
    of_experts = [linear for one in experts for linear in one.linears]
    huge = use_huge_pages(linear.weight for linear in (*linears, *of_experts))
    layers = sum(forward.agrees for forward in fused.values()) + over_source
    evidence: dict[str, int | str] = {"linears": len(linears), "fused_layers": layers}
    if experts:
        evidence["mixtures"] = sum(one.agrees for one in experts)
    if huge:
        evidence["huge_pages"] = f"{huge // 2**20} MiB"
    names = {module: name for name, module in copied.named_modules()}
    return Stepper(
        copied,
        sum(linear.weight.nbytes for linear in linears if not ONCE.search(names[linear]))
        + sum(one.bytes_read(chosen) for one in experts),
        evidence,
        kept=None if over_source else making.keep(checked),
    )


def _replace(
    model: torch.nn.Module, making: Linears, library: ctypes.CDLL, unload: Unload | None
) -> tuple[list[FewRowsLinear], list[FewRowsExperts]]:
    """Replace the linears of a model and the experts of its mixtures."""
    linears: dict[torch.nn.Module, FewRowsLinear] = {}
    experts: list[FewRowsExperts] = []
    stepped = _stepped_modules(model)
    for prefix, parent in list(model.named_modules()):
        for name, child in list(parent.named_children()):
            path = f"{prefix}.{name}".lstrip(".")
            linear = _as_linear(child)
            if child not in stepped or not runs_its_class(child):
                continue
            if linear is not None:
                if child not in linears:
                    linears[child] = making.make(path, linear)
                    _unload(child.weight, linears[child], unload)
                setattr(parent, name, linears[child])
            elif is_experts(child):
                joint = {n: as_linear(weights) for n, weights in child.named_parameters()}
                made = {n: making.make(f"{path}.{n}", one) for n, one in joint.items()}
                experts.append(
                    FewRowsExperts(child, made["gate_up_proj"], made["down_proj"], library)
                )
                setattr(parent, name, experts[-1])
                for n, one in made.items():
                    _unload(getattr(child, n), one, unload)
    return list(linears.values()), experts


def _unload(weight: object, made: FewRowsLinear, unload: Unload | None) -> None:
    """Unload a weight if the kernels don't read it where it is."""
    assert isinstance(weight, torch.Tensor)
    if unload is not None and made.described.weight != weight.data_ptr():
        unload(weight)


def _stepped_modules(model: torch.nn.Module) -> set[torch.nn.Module]:
    """The modules that compute each token: all, or the decoder's and the head."""
    assert isinstance(model, PreTrainedModel)
    if not model.config.is_encoder_decoder:
        return set(model.modules())
    decoder, head = model.get_decoder(), model.get_output_embeddings()  # type: ignore[no-untyped-call]
    return {head, *decoder.modules()} - set(model.get_encoder().modules())


def _check(model: torch.nn.Module, checked: Sequence[Checked]) -> None:
    """Compare layers and experts with the model's own code, on a prompt and a step after it."""
    if not checked:
        return
    assert isinstance(model, PreTrainedModel)
    cache = DynamicCache(config=model.config.get_text_config(decoder=True))
    cache.activate_past_recording()  # type: ignore[no-untyped-call]
    for ids in (SAMPLE, SAMPLE[:, :1]):
        model(input_ids=ids, past_key_values=cache, use_cache=True)
    for one in checked:
        one.finish_checking()


def _chain(
    model: PreTrainedModel,
    fused: Mapping[torch.nn.Module, FusedForward],
    library: ctypes.CDLL,
    positions: Positions,
) -> None:
    """Let one call compute all layers, where that is what the model's code does."""
    config = model.config.get_text_config(decoder=True)
    layers = [forward.parts for forward in fused.values() if forward.agrees]
    if can_be_chained([*fused], layers, config):
        chain = Chain(layers, config, library, positions)
        for forward in fused.values():
            forward.chain = chain


def _as_linear(module: torch.nn.Module) -> torch.nn.Linear | None:
    """A module as a linear that the kernels can compute, or None. Transposes GPT-2's weights."""
    if type(module) is torch.nn.Linear:
        return module if module.weight.dtype in FLOATS else None
    if type(module) is not Conv1D or module.weight.dtype not in FLOATS:
        return None
    inputs, outputs = module.weight.shape
    linear = torch.nn.Linear(inputs, outputs, device="meta")
    linear.weight = torch.nn.Parameter(module.weight.detach().t(), requires_grad=False)
    linear.bias = module.bias
    return linear
