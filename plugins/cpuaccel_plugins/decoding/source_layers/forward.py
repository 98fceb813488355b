"""The forward of decoder layers over an encoder's output: by the kernels, or their own code."""

import ctypes
from collections.abc import Callable

import torch
from torch.nn.modules.module import _has_any_global_hook
from transformers.cache_utils import Cache, DynamicLayer, EncoderDecoderCache

from cpuaccel_plugins.decoding.agreement import ROUNDED, Checked
from cpuaccel_plugins.decoding.linear import FewRowsLinear
from cpuaccel_plugins.decoding.source_layers.chain import Inputs, SourceChain
from cpuaccel_plugins.decoding.source_layers.parts import SourceParts

Outputs = torch.Tensor | tuple[torch.Tensor | None, ...]
"""Hidden states, in some kinds of layers with what else they return."""


class SourceForward(Checked):
    """The forward of one layer.

    Attributes:
        parts: of the layer.
        chain: computes the layer, by itself or with others.
    """

    def __init__(self, layer: torch.nn.Module, parts: SourceParts, library: ctypes.CDLL) -> None:
        super().__init__(f"layer {parts.index}")
        self._plain: Callable[..., Outputs] = layer.forward
        self.parts = parts
        self.chain = SourceChain([parts], library)
        linears = [one for one in layer.modules() if isinstance(one, FewRowsLinear)]
        self._rounding = ROUNDED if any(one.has_few_bits for one in linears) else 0.0

    def _computed(self, inputs: Inputs) -> torch.Tensor | None:
        """The output by the kernels; None if only the layer's own code can compute it."""
        if not self.agrees or self.checking or _has_any_global_hook():  # type: ignore[no-untyped-call]
            return None
        return self.chain(self.parts.index, inputs)

    def _checked(self, inputs: Inputs, run_plain: Callable[[], Outputs]) -> Outputs:
        """Run the layer's own code, and while it is checked, the kernels before."""
        output = self._tried(inputs) if self.checking and self.agrees else None
        plain = run_plain()
        if output is not None:
            hidden = plain if isinstance(plain, torch.Tensor) else hidden_in(plain)
            self.compare(output, hidden, self._rounding)
        return plain

    def _tried(self, inputs: Inputs) -> torch.Tensor | None:
        """The output by the kernels, with a cache that is as it was before."""
        cache, index = inputs.cache, self.parts.index
        if not isinstance(cache, EncoderDecoderCache):
            return None
        was_updated = bool(cache.is_updated.get(index))
        output = self.chain.compute(inputs)
        if output is not None:
            layer = cache.self_attention_cache.layers[index]
            assert isinstance(layer, DynamicLayer)
            layer.crop(-inputs.hidden.shape[1])
            if not was_updated:
                cache.cross_attention_cache.layers[index].reset()
                cache.is_updated.pop(index)
        return output


class BartForward(SourceForward):
    """The forward of a layer of BART's kind.

    Attributes:
        returns_tuple: whether its own code returns the hidden states in a tuple.
    """

    returns_tuple = False

    def __call__(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        encoder_hidden_states: torch.Tensor | None = None,
        encoder_attention_mask: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        **kwargs: object,
    ) -> Outputs:
        """Take and return what the layer's own forward does."""
        inputs = Inputs(
            *(hidden_states, attention_mask, encoder_hidden_states, encoder_attention_mask),
            *(None, past_key_values),
        )
        output = self._computed(inputs)
        if output is not None:
            return (output,) if self.returns_tuple else output

        def run_plain() -> Outputs:
            return self._plain(
                hidden_states,
                attention_mask,
                encoder_hidden_states,
                encoder_attention_mask=encoder_attention_mask,
                past_key_values=past_key_values,
                **kwargs,
            )

        plain = self._checked(inputs, run_plain)
        self.returns_tuple = isinstance(plain, tuple)
        return plain


class T5Forward(SourceForward):
    """The forward of a block of T5's kind."""

    def __init__(self, block: torch.nn.Module, parts: SourceParts, library: ctypes.CDLL) -> None:
        super().__init__(block, parts, library)
        attention = block.get_submodule("layer.0.SelfAttention")
        self._bias: Callable[..., torch.Tensor] | None = None
        if attention.has_relative_attention_bias:
            self._bias = attention.compute_bias  # type: ignore[assignment]

    def __call__(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_bias: torch.Tensor | None = None,
        encoder_hidden_states: torch.Tensor | None = None,
        encoder_attention_mask: torch.Tensor | None = None,
        encoder_decoder_position_bias: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        **kwargs: object,
    ) -> Outputs:
        """Take and return what the block's own forward does.

        The bias of scores over the encoder's output, which is 0, is left out where the kernels
        compute: a block that misses it makes it by itself.
        """
        bias = position_bias
        if bias is None and self._bias is not None and past_key_values is not None:
            past = past_key_values.get_seq_length(self.parts.index)
            tokens = hidden_states.shape[1]
            bias = self._bias(tokens, past + tokens, past_seen_tokens=past)
        inputs = Inputs(
            *(hidden_states, attention_mask, encoder_hidden_states, encoder_attention_mask),
            *(bias, past_key_values),
        )
        output = self._computed(inputs)
        if output is not None:
            return output, bias, None

        def run_plain() -> Outputs:
            return self._plain(
                *(hidden_states, attention_mask, position_bias, encoder_hidden_states),
                *(encoder_attention_mask, encoder_decoder_position_bias),
                past_key_values=past_key_values,
                **kwargs,
            )

        return self._checked(inputs, run_plain)


def hidden_in(outputs: tuple[torch.Tensor | None, ...]) -> torch.Tensor:
    """The hidden states in what a layer returns."""
    hidden = outputs[0]
    assert hidden is not None
    return hidden
