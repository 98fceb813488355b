"""Steps of an encoder-decoder on OpenVINO."""

from typing import cast

import torch
from transformers import PreTrainedModel
from transformers.cache_utils import EncoderDecoderCache
from transformers.modeling_outputs import Seq2SeqLMOutput

from cpuaccel_plugins.openvino.decoding.cross_attention import cross_context
from cpuaccel_plugins.openvino.decoding.export import KEPT, first_call
from cpuaccel_plugins.openvino.decoding.stepper import StatefulForward, refuse_others


class EncoderDecoderForward:
    """Serves the forward of an encoder-decoder whose encoder has run.

    The model itself computes the first tokens of a text, and with them the keys and values of
    cross-attention, which stay in the cache as tensors: the graph reads them where they are.
    """

    def __init__(self, decoder: StatefulForward, model: PreTrainedModel) -> None:
        """Serve a model's forward by its decoder, which was exported."""
        self._decoder = decoder
        self._model = model

    def run_once(self) -> None:
        """Let OpenVINO choose its kernels."""
        output, cache = first_call(self._model)
        assert isinstance(cache, EncoderDecoderCache)
        source = getattr(output, "encoder_last_hidden_state", None)
        cross = cache.cross_attention_cache
        self._decoder.run_once(cross_context(cross, source, None, self._decoder.inputs))

    def __call__(self, *, past_key_values: EncoderDecoderCache, **inputs: object) -> object:
        """Compute the logits, and extend the cache.

        Raises:
            BackendError: an argument is not one of the graph's inputs, or has another form.
        """
        if not _has_source(past_key_values):
            return self._model(past_key_values=past_key_values, **inputs)
        ids, mask, positions = (
            cast(torch.Tensor | None, inputs.pop(name, None))
            for name in ("decoder_input_ids", "decoder_attention_mask", "decoder_position_ids")
        )
        encoded = cast(tuple[torch.Tensor, ...] | None, inputs.pop("encoder_outputs", None))
        source = None if encoded is None else encoded[0]
        source_mask = cast(torch.Tensor | None, inputs.pop("attention_mask", None))
        kept = cast(int | torch.Tensor, inputs.pop(KEPT, 0))
        refuse_others(inputs)
        cross = past_key_values.cross_attention_cache
        context = cross_context(cross, source, source_mask, self._decoder.inputs)
        logits = self._decoder.compute(
            past_key_values.self_attention_cache, ids, mask, positions, kept, context
        )
        return Seq2SeqLMOutput(
            logits=logits, past_key_values=past_key_values, encoder_last_hidden_state=source
        )


def _has_source(cache: EncoderDecoderCache) -> bool:
    """Whether keys and values of the encoder's output have been computed."""
    updated = cache.is_updated.values()
    return bool(updated) and all(updated) and len(cache.cross_attention_cache.layers) > 0
