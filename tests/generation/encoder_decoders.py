"""Tiny encoder-decoders with random weights, and what their encoders read."""

import functools
from typing import Any

import torch

import cpuaccel
from tests.generation.models import served_once

VOCABULARY = 500
IMAGE = 32
MELS, FRAMES = 16, 64
IMAGE_TOKEN = VOCABULARY - 1
"""The token of florence2 for a patch of an image."""

TOKENS = {"vocab_size": VOCABULARY, "bos_token_id": 1, "pad_token_id": 0, "eos_token_id": 2}
START = {
    **TOKENS,
    **{"decoder_start_token_id": 3, "forced_eos_token_id": None, "tie_word_embeddings": False},
}

BART = {
    **START,
    **{"d_model": 64, "encoder_layers": 2, "decoder_layers": 2},
    **{"encoder_attention_heads": 4, "decoder_attention_heads": 4},
    **{"encoder_ffn_dim": 128, "decoder_ffn_dim": 128, "max_position_embeddings": 128},
}

BERT = {
    **TOKENS,
    **{"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4},
    **{"intermediate_size": 128, "max_position_embeddings": 128},
}

VIT = {
    **{"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4},
    **{"intermediate_size": 96, "image_size": IMAGE, "patch_size": 8},
}


def _whisper() -> Any:
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    return WhisperForConditionalGeneration(
        WhisperConfig(
            **BART,
            **{"num_mel_bins": MELS, "max_source_positions": FRAMES // 2},
            **{
                "max_target_positions": 128,
                "max_length": None,
                "suppress_tokens": [],
                "begin_suppress_tokens": [],
            },
        )
    )


def _t5(**changes: object) -> Any:
    from transformers import T5Config, T5ForConditionalGeneration

    sizes = {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4}
    return T5ForConditionalGeneration(T5Config(**{**START, **sizes, **changes}))


def _of_text(prefix: str, head: str, **changes: object) -> Any:
    import transformers

    config = getattr(transformers, f"{prefix}Config")(**{**BART, **changes})
    return getattr(transformers, f"{prefix}{head}")(config)


def _trocr() -> Any:
    from transformers import TrOCRConfig, TrOCRForCausalLM, ViTConfig, ViTModel

    decoder = TrOCRForCausalLM(TrOCRConfig(**BART, cross_attention_hidden_size=48))
    return _joined(ViTModel(ViTConfig(**VIT), add_pooling_layer=False), decoder)


def _donut() -> Any:
    from transformers import DonutSwinConfig, DonutSwinModel, MBartConfig, MBartForCausalLM

    swin = DonutSwinConfig(
        image_size=[IMAGE, 2 * IMAGE],
        patch_size=4,
        embed_dim=32,
        depths=[1, 1],
        num_heads=[2, 4],
        window_size=4,
    )
    decoder = MBartConfig(**BART, is_decoder=True, add_cross_attention=True)
    return _joined(DonutSwinModel(swin, add_pooling_layer=False), MBartForCausalLM(decoder))


def _joined(encoder: Any, decoder: Any) -> Any:
    from transformers import VisionEncoderDecoderModel

    model = VisionEncoderDecoderModel(encoder=encoder, decoder=decoder)
    model.config.decoder_start_token_id = model.generation_config.decoder_start_token_id = 3
    model.config.pad_token_id = model.generation_config.pad_token_id = 0
    model.config.eos_token_id = model.generation_config.eos_token_id = 2
    return model


def _blip() -> Any:
    from transformers import BlipConfig, BlipForConditionalGeneration

    text = {**BERT, "sep_token_id": 2, "encoder_hidden_size": 48, "projection_dim": 32}
    return BlipForConditionalGeneration(BlipConfig(text_config=text, vision_config=VIT))


def _florence2() -> Any:
    from transformers import Florence2Config, Florence2ForConditionalGeneration

    vision = {
        **{"embed_dim": [16, 32], "depths": [1, 1], "num_heads": [2, 2], "num_groups": [2, 2]},
        **{"patch_size": [7, 3], "patch_stride": [4, 2], "patch_padding": [3, 1]},
        **{"patch_prenorm": [False, True], "window_size": 4, "projection_dim": 64},
    }
    config = Florence2Config(
        text_config={"model_type": "bart", **BART}, vision_config=vision, image_token_id=IMAGE_TOKEN
    )
    return Florence2ForConditionalGeneration(config)


MODELS = {
    "whisper": _whisper,
    "t5": _t5,
    "flan_t5": functools.partial(_t5, feed_forward_proj="gated-gelu"),
    "bart": functools.partial(
        _of_text, "Bart", "ForConditionalGeneration", tie_word_embeddings=True
    ),
    "marian": functools.partial(_of_text, "Marian", "MTModel"),
    "m2m100": functools.partial(_of_text, "M2M100", "ForConditionalGeneration"),
    "trocr": _trocr,
    "donut": _donut,
    "blip": _blip,
    "florence2": _florence2,
}


def _mt5() -> Any:
    from transformers import MT5Config, MT5ForConditionalGeneration

    sizes = {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4}
    return MT5ForConditionalGeneration(MT5Config(**{**START, **sizes}))


RELATED = {
    "mbart": functools.partial(_of_text, "MBart", "ForConditionalGeneration"),
    "pegasus": functools.partial(_of_text, "Pegasus", "ForConditionalGeneration"),
    "mt5": _mt5,
}
"""Models with the layers of some of the others."""


def encoder_decoder(name: str, *, seed: int = 0) -> Any:
    """Make one of these models in eval mode, with the same weights on every call."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = {**MODELS, **RELATED}[name]().eval()
        for parameter in model.parameters():  # texts that differ from token to token
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.15)
    return model


@functools.cache
def accelerated(name: str, backend: str = "onednn") -> tuple[Any, Any]:
    """An encoder-decoder and what a backend makes of it, shared by the tests of a process."""
    model = encoder_decoder(name)
    return model, cpuaccel.optimize(model, [backend])


def source(name: str, model: Any, *, seed: int = 0) -> dict[str, torch.Tensor]:
    """What the encoder of one of ``MODELS`` reads: two rows, texts padded on the right."""
    random = torch.Generator().manual_seed(seed)
    if name == "whisper":
        return {"input_features": torch.randn(2, MELS, FRAMES, generator=random)}
    size = (IMAGE, 2 * IMAGE) if name == "donut" else (IMAGE, IMAGE)
    image = torch.randn(2, 3, *size, generator=random)
    if name in ("trocr", "donut", "blip"):
        return {"pixel_values": image}
    ids = torch.randint(4, IMAGE_TOKEN, (2, 14), generator=random)
    mask = torch.ones_like(ids)
    ids[1, 9:], mask[1, 9:] = 0, 0
    if name != "florence2":
        return {"input_ids": ids, "attention_mask": mask}
    with torch.no_grad():
        patches = model.get_image_features(image).pooler_output.shape[1]
    return {
        "input_ids": torch.cat([torch.full((2, patches), IMAGE_TOKEN), ids], 1),
        "attention_mask": torch.cat([torch.ones(2, patches, dtype=torch.int64), mask], 1),
        "pixel_values": image,
    }


def text_of(model: Any, inputs: dict[str, torch.Tensor], **call: object) -> torch.Tensor:
    """Generate 12 tokens without repetitions, with the same random numbers on every call."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        tokens = model.generate(
            **inputs,
            **{"max_new_tokens": 12, "do_sample": False, "no_repeat_ngram_size": 2, **call},
        )
    assert isinstance(tokens, torch.Tensor)
    return tokens


def assert_same_text(
    fast: Any, model: Any, inputs: dict[str, torch.Tensor], **call: object
) -> None:
    """Assert that both models generate the same tokens, which are not all alike."""
    expected = text_of(model, inputs, **call)
    assert len(expected[0].unique()) > 4
    assert torch.equal(text_of(fast, inputs, **call), expected)


def assert_served(fast: Any, model: Any, inputs: dict[str, torch.Tensor], **call: object) -> None:
    """Assert that the stepper serves one call of ``generate``, with the original's tokens."""
    with served_once(fast):
        assert_same_text(fast, model, inputs, **call)
