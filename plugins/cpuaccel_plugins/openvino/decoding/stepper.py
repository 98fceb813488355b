"""Prefill and steps of a decoder on OpenVINO."""

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, cast

import torch
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache

from cpuaccel import BackendError, CacheLayer
from cpuaccel_plugins.openvino.decoding.export import (
    KEPT,
    PAST,
    POSITIONS,
    first_call,
    parts_of,
)
from cpuaccel_plugins.openvino.decoding.request import Request, Rows, StateLayer, Variables

if TYPE_CHECKING:
    import openvino

MASK = "attention_mask"

POSITION_LIMITS = ("max_target_positions", "max_position_embeddings")
"""Names that configurations have for the number of positions of a decoder."""

NOTHING: Mapping[str, torch.Tensor] = {}

IGNORED = frozenset({"use_cache", "return_dict"})
"""Arguments that say what a stepper does anyway."""


class StatefulForward:
    """Serves the forward of a decoder by requests, one for each text.

    Attributes:
        inputs: names of the graph's inputs.
    """

    def __init__(
        self,
        compiled: "openvino.CompiledModel",
        variables: Variables,
        model: PreTrainedModel,
        cache_dtype: torch.dtype,
    ) -> None:
        """Serve a model's forward.

        Args:
            compiled: an exported decoder.
            variables: the names of its variables, layer by layer.
            model: what was exported.
            cache_dtype: of the keys and values in OpenVINO's memory.
        """
        self._compiled = compiled
        self._variables = variables
        self.inputs = {name for port in compiled.inputs for name in port.get_names()}
        self._dtype = model.dtype
        config = model.config.get_text_config(decoder=True)
        self._vocabulary: int = config.vocab_size
        self._positions: int = next(
            (getattr(config, name) for name in POSITION_LIMITS if hasattr(config, name)),
            sys.maxsize,
        )
        # The compiled model reads some of them where they are.
        self._weights = [t.detach() for t in (*model.parameters(), *model.buffers())]
        output, cache = first_call(model)
        self._output: Callable[..., object] = type(output)
        self._sizes = [
            [(part.shape[1], part.shape[3]) for part in (keys, values)]
            for keys, values, _ in parts_of(cache)[0]
        ]
        self._cache_itemsize = cache_dtype.itemsize

    def run_once(self, context: Mapping[str, torch.Tensor] = NOTHING) -> None:
        """Let OpenVINO choose its kernels, by a call with several tokens.

        ``context`` are inputs of the graph besides those of the tokens ``PAST``.

        In 2026.4 some are made for the sizes of the first call, and wrong after one with one key.
        """
        Request(self._compiled, self._variables).run({**self._named(PAST, 0), **context}, None)

    def __call__(
        self,
        *,
        past_key_values: DynamicCache,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **others: object,
    ) -> object:
        """Compute the logits, and extend the cache.

        Raises:
            BackendError: an argument is not one of the graph's inputs, or has another form.
        """
        refuse_others(others)
        logits = self.compute(
            past_key_values, input_ids, attention_mask, position_ids, logits_to_keep
        )
        return self._output(logits=logits, past_key_values=past_key_values)

    def compute(
        self,
        cache: DynamicCache,
        ids: torch.Tensor | None,
        mask: torch.Tensor | None,
        positions: torch.Tensor | None,
        kept: int | torch.Tensor = 0,
        context: Mapping[str, torch.Tensor] = NOTHING,
    ) -> torch.Tensor:
        """Compute the logits of new tokens, and extend the cache.

        Args:
            cache: of self-attention.
            ids: new tokens, shape (batch, tokens).
            mask: of all tokens, shape (batch, all tokens); None if all are real.
            positions: of the new tokens; None for the next ones.
            kept: for which of the new tokens logits are computed, as ``logits_to_keep``.
            context: inputs of the graph besides.

        Raises:
            BackendError: one of them has another form.
        """
        if ids is None or ids.dim() != 2 or not ids.numel():
            raise BackendError("no tokens are passed")
        if not bool(((ids >= 0) & (ids < self._vocabulary)).all()):
            raise BackendError("a token is not in the vocabulary")
        past = cache.get_seq_length()
        inputs = {**self._named(ids, past, mask, positions, kept), **context}
        if any(len(tensor) != len(ids) for tensor in context.values()):
            raise BackendError(f"the encoder's output does not have {len(ids)} rows")
        request, rows = self._request(cache, len(ids), past)
        logits = request.run(inputs, rows)
        batch, total = inputs[MASK].shape
        for index, (layer, sizes) in enumerate(zip(_layers(cache), self._sizes, strict=True)):
            count = batch * total * sum(heads * size for heads, size in sizes)
            nbytes = self._cache_itemsize * count
            layer.put(StateLayer(request, request.version, index, total, None, self._dtype, nbytes))
        return logits.to(self._dtype)

    def _named(
        self,
        ids: torch.Tensor,
        past: int,
        mask: torch.Tensor | None = None,
        positions: torch.Tensor | None = None,
        kept: int | torch.Tensor = 0,
    ) -> dict[str, torch.Tensor]:
        """The inputs of the graph, for tokens after a number of others."""
        batch, new = ids.shape
        total = past + new
        if mask is None:
            mask = torch.ones(batch, total, dtype=torch.int64)
        elif mask.shape != (batch, total):
            raise BackendError(f"the mask has the shape {tuple(mask.shape)}")
        elif positions is None and POSITIONS in self.inputs and not bool(mask.all()):
            raise BackendError("a mask of padding is passed without positions")
        inputs = {"input_ids": ids, MASK: mask.long()}
        positions = torch.arange(past, total)[None] if positions is None else positions
        # Past them the original raises, or computes other frequencies than the traced ones.
        if not bool(((positions >= 0) & (positions < self._positions)).all()):
            raise BackendError(f"a position is not one of the {self._positions} of the model")
        if POSITIONS in self.inputs:
            inputs[POSITIONS] = positions.expand(batch, new)
        if KEPT in self.inputs:
            indices = torch.arange(new)
            inputs[KEPT] = indices[-kept:] if isinstance(kept, int) else indices[kept]
        return inputs

    def _request(self, cache: DynamicCache, batch: int, past: int) -> tuple[Request, Rows | None]:
        """The request that has the contents of a cache, and the rows to go on with."""
        while cache.layer_class_to_replicate and len(cache.layers) < len(self._variables):
            cache.layers.append(cache.layer_class_to_replicate())
        layers = _layers(cache)
        if len(layers) != len(self._variables):
            raise BackendError(f"the cache has {len(layers)} layers")
        first = layers[0].storage
        if isinstance(first, StateLayer) and self._goes_on(first, layers):
            return first.request, first.rows
        request = Request(self._compiled, self._variables)
        if past:
            contents = [_all_tokens(layer) for layer in layers]
            # OpenVINO would read past the end of smaller tensors.
            for tensors, sizes in zip(contents, self._sizes, strict=True):
                for tensor, (heads, size) in zip(tensors, sizes, strict=True):
                    if tensor.shape != (batch, heads, past, size):
                        raise BackendError(f"the cache has tensors of shape {tuple(tensor.shape)}")
            request.fill(contents)
        return request, None

    def _goes_on(self, first: StateLayer, layers: Sequence[CacheLayer]) -> bool:
        """Whether all layers have what the request of the first one has now."""
        request = first.request
        return (
            request.compiled is self._compiled
            and request.version == first.version
            and not request.is_broken
            and all(
                isinstance(storage := layer.storage, StateLayer)
                and storage.request is request
                and storage.version == first.version
                and storage.rows == first.rows
                for layer in layers
            )
        )


def refuse_others(arguments: Mapping[str, object]) -> None:
    """Raise a ``BackendError`` for arguments that a graph does not have."""
    for name, value in arguments.items():
        if name not in IGNORED and value is not None and value is not False:
            raise BackendError(f"{name} is passed, which the graph does not have")


def _layers(cache: DynamicCache) -> Sequence[CacheLayer]:
    return cast(Sequence[CacheLayer], cache.layers)


def _all_tokens(layer: CacheLayer) -> tuple[torch.Tensor, torch.Tensor]:
    """The keys and values of a layer, with zeros for tokens that have left its window."""
    assert layer.keys is not None
    assert layer.values is not None
    missing = layer.get_seq_length() - layer.keys.shape[2]
    padding = (0, 0, missing, 0)
    return (
        torch.nn.functional.pad(layer.keys, padding),
        torch.nn.functional.pad(layer.values, padding),
    )
