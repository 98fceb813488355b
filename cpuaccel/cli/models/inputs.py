"""Synthetic inputs for a model: text, images or audio, with a chosen share of padding."""

import inspect
from typing import Any

import torch

from cpuaccel.errors import ModelError
from cpuaccel.model.signature import MASK, Inputs

SEED = 0
SAMPLES = 320
"""Audio samples per unit of --seq-len: 20 ms at 16 kHz, about one output frame."""

SHORTEST_AUDIO = 10
"""Smallest length in units: with less, the convolutions of an audio encoder have no output."""

FRAME_SECONDS = 0.01
"""Seconds of speech in a frame of Whisper's features."""

MODALITIES = ("input_ids", "pixel_values", "input_values")


def modality(model: torch.nn.Module) -> str:
    """Return the name of the model's main input, one of ``MODALITIES``."""
    name = getattr(model, "main_input_name", "")
    if name not in MODALITIES:
        raise ModelError(
            f"the main input of {type(model).__name__} must be one of {', '.join(MODALITIES)}, got "
            f"{name or 'none of them'}. Use cpuaccel.optimize from Python for this model"
        )
    return str(name)


def make_inputs(
    model: torch.nn.Module, batch_size: int, seq_len: int, padding: float = 0.0
) -> Inputs:
    """Make one batch, the same in every run. The global random state is unchanged.

    Args:
        model: a Transformers model.
        batch_size: number of rows.
        seq_len: tokens in the longest row; for audio, units of ``SAMPLES`` samples; ignored for
            images.
        padding: fraction of the batch that is padding, 0 <= padding < 1. See ``row_lengths``.

    Raises:
        ModelError: the model has another kind of input.
    """
    kind = modality(model)
    generator = torch.Generator().manual_seed(SEED)
    if kind == "pixel_values":
        return {kind: torch.randn(batch_size, *_image_shape(model), generator=generator)}
    if kind == "input_values":
        lengths = [
            n * SAMPLES for n in row_lengths(batch_size, seq_len, padding, shortest=SHORTEST_AUDIO)
        ]
        mask = _mask(lengths)
        values = torch.randn(mask.shape, generator=generator) * mask
        # Models with group norm were trained without a mask, so only padded batches get one.
        masked = getattr(_config(model), "feat_extract_norm", "layer") == "layer"
        return {kind: values, **({MASK: mask} if masked or padding else {})}
    mask = _mask(row_lengths(batch_size, seq_len, padding))
    inputs: Inputs = {kind: _token_ids(model, mask, generator), MASK: mask}
    if "token_type_ids" in inspect.signature(model.forward).parameters:
        inputs["token_type_ids"] = torch.zeros_like(mask)
    return inputs


def make_prompts(
    model: torch.nn.Module, batch_size: int, length: int, padding: float = 0.0
) -> Inputs:
    """Make one batch of prompts for ``generate``, padded on the left, the same in every run."""
    mask = _mask(row_lengths(batch_size, length, padding)).flip(1)
    generator = torch.Generator().manual_seed(SEED)
    return {"input_ids": _token_ids(model, mask, generator), MASK: mask}


def reads_speech(model: torch.nn.Module) -> bool:
    """Whether a model generates from features of speech."""
    return getattr(model, "main_input_name", "") == "input_features"


def make_speech(model: torch.nn.Module, batch_size: int) -> tuple[Inputs, float]:
    """Make one batch of features of speech as long as the encoder reads, the same in every run.

    Returns:
        The batch, and the seconds of speech in each row.

    Raises:
        ModelError: the model's features are not those of Whisper.
    """
    config = _config(model)
    if config.model_type != "whisper":
        raise ModelError(
            f"no recordings can be made for {type(model).__name__}. Use a Whisper, or evaluate the "
            "model on recordings as in examples/speech_recognition"
        )
    frames = 2 * int(config.max_source_positions)
    generator = torch.Generator().manual_seed(SEED)
    features = torch.randn(batch_size, config.num_mel_bins, frames, generator=generator)
    return {"input_features": features}, frames * FRAME_SECONDS


def row_lengths(batch_size: int, longest: int, padding: float, shortest: int = 1) -> list[int]:
    """Choose the number of real tokens in each row: the first row is full, the others vary evenly.

    The share of padding is as close to ``padding`` as whole tokens and the full row allow. A single
    row has no padding.

    Args:
        batch_size: number of rows.
        longest: tokens in the full row.
        padding: fraction of all tokens.
        shortest: smallest number of real tokens in a row.
    """
    others = batch_size - 1
    if not others or not padding:
        return [longest] * batch_size
    shortest = min(shortest, longest)
    mean = max((batch_size * (1 - padding) - 1) * longest / others, shortest)
    spread = min(mean - shortest, longest - mean)
    steps = [1 - 2 * i / (others - 1) for i in range(others)] if others > 1 else [0.0]
    return [longest, *(round(mean + spread * step) for step in steps)]


def _mask(lengths: list[int]) -> torch.Tensor:
    return (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()


def _token_ids(
    model: torch.nn.Module, mask: torch.Tensor, generator: torch.Generator
) -> torch.Tensor:
    config = _config(model)
    vocabulary = int(config.vocab_size)
    pad = getattr(config, "pad_token_id", None)
    if pad is None:
        return torch.randint(vocabulary, mask.shape, generator=generator)
    ids = torch.randint(vocabulary - 1, mask.shape, generator=generator)
    ids += ids >= pad  # skip the padding token
    return torch.where(mask.bool(), ids, pad)


def _config(model: torch.nn.Module) -> Any:
    return model.config


def _image_shape(model: torch.nn.Module) -> tuple[int, int, int]:
    size = getattr(_config(model), "image_size", 224)
    height, width = size if isinstance(size, (list, tuple)) else (size, size)
    return int(getattr(_config(model), "num_channels", 3)), int(height), int(width)
