"""What ``generate`` calls for each token: a model or a part of it, its inputs and its cache."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput

from cpuaccel.errors import BackendError
from cpuaccel.generation.cache import Growable, let_grow

SOURCES = (24, 17, 9)
"""Lengths of the texts that an encoder reads for three rows, padded on the right."""

OUTPUTS, STATES = "encoder_outputs", "encoder_hidden_states"
"""What an encoder has computed, as encoder-decoders and as decoders take it."""

DECODERS = {"blip": "text_decoder"}
"""Attributes that hold the decoder, by the ``model_type`` of models whose ``generate`` runs an
encoder by itself and then calls the decoder's ``generate``."""

ENCODERS = {"blip": "vision_model"}
"""Attributes that hold the encoder of these models."""


def stepped_part(model: PreTrainedModel) -> PreTrainedModel:
    """The part of a model whose ``forward`` ``generate`` calls for each token; most often all."""
    return _part(model, DECODERS) or model


def encoder_of(model: PreTrainedModel) -> PreTrainedModel | None:
    """The part of a model that ``generate`` calls once, before the first token."""
    encoder = model.get_encoder() if model.config.is_encoder_decoder else _part(model, ENCODERS)
    return encoder if isinstance(encoder, PreTrainedModel) else None


def _part(model: PreTrainedModel, names: Mapping[str, str]) -> PreTrainedModel | None:
    part = getattr(model, names.get(model.config.model_type, ""), None)
    return part if isinstance(part, PreTrainedModel) else None


def extra_outputs(inputs: Mapping[str, object]) -> str:
    """Say what a call asks for besides the output; empty if nothing."""
    for name in ("output_attentions", "output_hidden_states", "labels"):
        if inputs.get(name) is not None and inputs[name] is not False:
            return f"{name} is asked for"
    return ""


def positions_of(model: PreTrainedModel) -> int | None:
    """The most tokens that a decoder has positions for; None if any."""
    config = model.config.get_text_config(decoder=True)
    for name in ("max_target_positions", "max_position_embeddings"):
        positions = getattr(config, name, None)
        if isinstance(positions, int):
            return positions
    return None


def new_cache(model: PreTrainedModel) -> Growable:
    """Make the empty cache that ``generate`` makes."""
    config = model.config.get_text_config(decoder=True)
    cache: Growable = DynamicCache(config=config)
    if model.config.is_encoder_decoder:
        cache = EncoderDecoderCache(cache, DynamicCache(config=config))
    let_grow(cache)
    return cache


@dataclass(frozen=True)
class Subject:
    """How the part that is stepped is called in ``generate``.

    Attributes:
        model: the part.
        prefix: of the names of the decoder's inputs.
        context: what it reads besides tokens, three rows of each, by parameter name.
    """

    model: PreTrainedModel
    prefix: str = ""
    context: Mapping[str, torch.Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, model: PreTrainedModel) -> "Subject":
        """Take a model, and let its encoder read random inputs.

        Raises:
            BackendError: nothing is known of the encoder's inputs.
        """
        part, encoder = stepped_part(model), encoder_of(model)
        if encoder is None:
            return cls(part)
        output, mask = _encode(encoder)
        if part is not model:
            return cls(part, "", {STATES: output, "encoder_attention_mask": mask})
        context = {OUTPUTS: output}
        if "attention_mask" in inspect.signature(model.forward).parameters:
            context["attention_mask"] = mask
        return cls(model, "decoder_", context)

    def inputs(
        self,
        ids: torch.Tensor,
        rows: slice | torch.Tensor,
        mask: torch.Tensor | None = None,
        positions: torch.Tensor | None = None,
    ) -> dict[str, object]:
        """Name the inputs of a call.

        Args:
            ids: tokens, shape (rows, tokens).
            rows: which rows of the context belong to them.
            mask: of the tokens; None if all are real.
            positions: of the tokens; left out if the model takes none.
        """
        inputs: dict[str, object] = {f"{self.prefix}input_ids": ids}
        for name, value in self.context.items():
            inputs[name] = BaseModelOutput(value[rows]) if name == OUTPUTS else value[rows]
        if mask is not None:
            inputs[f"{self.prefix}attention_mask"] = mask
        name = f"{self.prefix}position_ids"
        if positions is not None and name in inspect.signature(self.model.forward).parameters:
            inputs[name] = positions
        return inputs

    @property
    def first_token(self) -> int | None:
        """The token that texts begin with; None if any."""
        generation = self.model.generation_config
        for token in (
            generation.decoder_start_token_id if self.prefix else None,
            getattr(self.model.config.get_text_config(decoder=True), "bos_token_id", None),
        ):
            if isinstance(token, int):
                return token
        return None


def example_call(model: PreTrainedModel) -> dict[str, object]:
    """Inputs of a short call of a model without a cache, by name."""
    encoder, ids = encoder_of(model), torch.arange(1, 9)[None]
    if encoder is None:
        return {"input_ids": ids, "use_cache": False}
    read = _random_source(encoder, 1)
    if stepped_part(model) is not model:
        return {**read, "input_ids": ids}
    return {**read, "decoder_input_ids": ids, "use_cache": False}


def _encode(encoder: PreTrainedModel) -> tuple[torch.Tensor, torch.Tensor]:
    """Let an encoder read random inputs.

    Returns:
        Its output for three rows, and the mask of what is real in it.
    """
    rows = len(SOURCES)
    if encoder.main_input_name == "input_ids":
        read = _random_source(encoder, rows)
        mask = (torch.arange(max(SOURCES)) < torch.tensor(SOURCES)[:, None]).long()
        return encoder(**read, attention_mask=mask).last_hidden_state, mask
    output = encoder(**_random_source(encoder, 1)).last_hidden_state
    # One pass for all rows: it takes long.
    shifts = [row * output.shape[1] // rows for row in range(rows)]
    output = torch.cat([output.roll(shift, 1) for shift in shifts])
    return output, torch.ones(output.shape[:2], dtype=torch.int64)


def _random_source(encoder: PreTrainedModel, rows: int) -> dict[str, torch.Tensor]:
    """Make random inputs of an encoder, by name.

    Raises:
        BackendError: nothing is known of them.
    """
    random = torch.Generator().manual_seed(1)
    name = encoder.main_input_name
    if name == "input_ids":
        size = (rows, max(SOURCES))
        return {name: torch.randint(encoder.config.vocab_size, size, generator=random)}
    shape = _shape(encoder)
    if shape is None:
        raise BackendError(
            f"nothing is known of what {type(encoder).__name__} reads ({name})",
            "Leave the step out",
            skipped=True,
        )
    return {name: torch.randn(rows, *shape, generator=random).to(encoder.dtype)}


def _shape(encoder: PreTrainedModel) -> tuple[int, ...] | None:
    """The shape of an input of an encoder for speech or images; None if it isn't known."""
    config, name = encoder.config, encoder.main_input_name
    if name == "input_features" and hasattr(config, "max_source_positions"):
        frames = getattr(config, "num_mel_bins", None), 2 * config.max_source_positions
        return frames if isinstance(frames[0], int) else None  # type: ignore[return-value]
    size = getattr(config, "image_size", None)
    if name == "pixel_values" and size is not None:
        height, width = (size, size) if isinstance(size, int) else size
        return getattr(config, "num_channels", 3), height, width
    return None
