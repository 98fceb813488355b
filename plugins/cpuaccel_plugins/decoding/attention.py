"""Attention of BART's kind, over a decoder's own tokens or an encoder's output, by the kernels.

Where rows are few, and only where these and the module's own code give the same results.
"""

import ctypes
from collections.abc import Callable

import torch
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer, EncoderDecoderCache

from cpuaccel_plugins.decoding.agreement import ROUNDED, Checked
from cpuaccel_plugins.decoding.layer import is_plain, mask_arguments
from cpuaccel_plugins.decoding.linear import MOST_ROWS, FewRowsLinear
from cpuaccel_plugins.decoding.parts import runs_its_class
from cpuaccel_plugins.decoding.structures import TYPES, CAttention, CNorm, cached

KINDS = frozenset(
    f"{name}Attention" for name in ("Bart", "MBart", "Marian", "M2M100", "Whisper", "TrOCR")
)
"""Classes of Transformers that scale queries, attend and project, and nothing else."""

OVER_SOURCE = ".encoder_attn"
"""How the names of those over an encoder's output end."""

PARTS = {"q_proj", "k_proj", "v_proj", "out_proj"}

TOKENS = torch.tensor([[1, 2, 3]])
"""Tokens on which the modules are compared with their own code."""

SOURCE = 7
"""Length of the encoder's output then."""

Attended = tuple[torch.Tensor, torch.Tensor | None]


class FusedAttention(Checked):
    """The forward of an attention: by the kernels, or by its own code.

    Attributes:
        width: of the states whose keys it computes.
    """

    def __init__(self, module: torch.nn.Module, library: ctypes.CDLL) -> None:
        self._index = int(module.layer_idx)  # type: ignore[arg-type]
        super().__init__(f"an attention of layer {self._index}")
        self._plain: Callable[..., Attended] = module.forward
        self._query, self._key, self._value, output = (
            _linear(module, name) for name in ("q_proj", "k_proj", "v_proj", "out_proj")
        )
        linears = (self._query, self._key, self._value, output)
        self._rounding = ROUNDED if any(one.has_few_bits for one in linears) else 0.0
        self._output = output  # keeps what the structure points to
        self._heads, self._size = int(module.num_heads), int(module.head_dim)  # type: ignore[arg-type]
        self._described = CAttention(
            output.described,
            CNorm(None, 0, 0.0),
            *(self._heads, self._heads, self._size, float(module.scaling)),  # type: ignore[arg-type]
        )
        self._library = library
        self.width = self._key.in_features

    def __call__(
        self,
        hidden_states: torch.Tensor,
        key_value_states: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        attention_mask: torch.Tensor | None = None,
        **kwargs: object,
    ) -> Attended:
        """Take and return what the module's own forward does."""
        output = None
        if self._can_compute(hidden_states, key_value_states, past_key_values, attention_mask):
            assert isinstance(past_key_values, EncoderDecoderCache)
            is_own = key_value_states is None
            output = self._compute(hidden_states, past_key_values, attention_mask, is_own)
            if not self.checking:
                return output, None
            if is_own:
                layer = past_key_values.self_attention_cache.layers[self._index]
                assert isinstance(layer, DynamicLayer)
                layer.crop(-hidden_states.shape[1])
        plain = self._plain(
            hidden_states,
            key_value_states=key_value_states,
            past_key_values=past_key_values,
            attention_mask=attention_mask,
            **kwargs,
        )
        if output is not None:
            self.compare(output, plain[0], self._rounding)
        return plain

    def _can_compute(
        self,
        hidden: torch.Tensor,
        source: torch.Tensor | None,
        cache: Cache | None,
        mask: torch.Tensor | None,
    ) -> bool:
        batch, tokens, _ = hidden.shape
        return (
            self.agrees
            and isinstance(cache, EncoderDecoderCache)
            and batch * tokens <= MOST_ROWS
            and hidden.dtype in TYPES
            and (mask is None or (is_plain(mask) and _fits(mask, batch, tokens)))
            # Keys of an encoder's output are all seen, which is causal for one token only.
            and (source is None or (bool(cache.is_updated.get(self._index)) and tokens == 1))
        )

    def _compute(
        self,
        hidden: torch.Tensor,
        cache: EncoderDecoderCache,
        mask: torch.Tensor | None,
        is_own: bool,
    ) -> torch.Tensor:
        batch, tokens, _ = hidden.shape
        query = self._query(hidden).float()
        keys: torch.Tensor | None
        values: torch.Tensor | None
        if is_own:
            shape = (batch, tokens, self._heads, self._size)
            key, value = (
                linear(hidden).view(shape).transpose(1, 2) for linear in (self._key, self._value)
            )
            keys, values = cache.self_attention_cache.update(key, value, self._index)
        else:
            layer = cache.cross_attention_cache.layers[self._index]
            assert isinstance(layer, DynamicLayer)
            keys, values = layer.keys, layer.values
        assert keys is not None
        assert values is not None
        if (*keys.shape[:2], keys.shape[3]) != (batch, self._heads, self._size):
            raise ValueError(f"the keys have shape {tuple(keys.shape)}, of {batch} rows")
        if keys.stride(-1) != 1 or values.stride(-1) != 1:
            keys, values = keys.contiguous(), values.contiguous()
        # The kernel adds the output to the hidden states, which the layer's own code does here.
        nothing, output = torch.zeros_like(hidden), torch.empty_like(hidden)
        self._library.cpuaccel_attend(
            ctypes.byref(self._described),
            *(query.data_ptr(), ctypes.byref(cached(keys)), ctypes.byref(cached(values))),
            *mask_arguments(mask, keys.shape[2]),
            *(batch, tokens, nothing.data_ptr(), output.data_ptr(), TYPES[hidden.dtype]),
        )
        return output


def fuse_attention(
    model: torch.nn.Module, stepped: set[torch.nn.Module], library: ctypes.CDLL
) -> list[FusedAttention]:
    """Let the kernels compute the attention of an encoder-decoder's decoder.

    Args:
        model: whose linears the kernels compute already. Of other models nothing is changed.
        stepped: the modules that compute each token.
        library: the kernels.

    Returns:
        What the kernels compute from now on: each was compared with the module's own code.
    """
    assert isinstance(model, PreTrainedModel)
    fused: dict[str, FusedAttention] = {}
    for name, module in model.named_modules() if model.config.is_encoder_decoder else ():
        if module in stepped and _is_known(module):
            fused[name] = module.forward = FusedAttention(module, library)
    widths = {forward.width for name, forward in fused.items() if name.endswith(OVER_SOURCE)}
    if len(widths) == 1:
        _compare(model, widths.pop())
    for forward in fused.values():
        forward.finish_checking()
    return [forward for forward in fused.values() if forward.agrees]


def _compare(model: PreTrainedModel, width: int) -> None:
    """Run a prompt and a step after it over some output of an encoder."""
    decoder = model.get_decoder()  # type: ignore[no-untyped-call]
    decoder = getattr(decoder, "decoder", decoder) if hasattr(decoder, "encoder") else decoder
    config = model.config.get_text_config(decoder=True)
    cache = EncoderDecoderCache(DynamicCache(config=config), DynamicCache(config=config))
    random = torch.Generator().manual_seed(0)
    source = torch.randn(1, SOURCE, width, generator=random).to(model.dtype)
    for ids in (TOKENS, TOKENS[:, :1]):
        decoder(input_ids=ids, encoder_hidden_states=source, past_key_values=cache, use_cache=True)


def _fits(mask: torch.Tensor, batch: int, tokens: int) -> bool:
    return mask.shape[0] in (1, batch) and mask.shape[2] == tokens


def _is_known(module: torch.nn.Module) -> bool:
    kind = type(module)
    children = dict(module.named_children())
    return (
        kind.__name__ in KINDS
        and kind.__module__.startswith("transformers.models.")
        and runs_its_class(module)
        and set(children) == PARTS
        and all(isinstance(child, FewRowsLinear) for child in children.values())
        and isinstance(getattr(module, "layer_idx", None), int)
    )


def _linear(module: torch.nn.Module, name: str) -> FewRowsLinear:
    linear = module.get_submodule(name)
    assert isinstance(linear, FewRowsLinear)
    return linear
