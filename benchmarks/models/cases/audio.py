"""Models that read sound, and forecasts of time series."""

from typing import Any

import torch

from cases.case import LAYERS, T5, Case


def _wav2vec2() -> torch.nn.Module:
    import transformers

    config = transformers.Wav2Vec2Config(
        vocab_size=30,
        **LAYERS,
        conv_dim=(32, 32),
        conv_kernel=(10, 3),
        conv_stride=(5, 2),
        num_feat_extract_layers=2,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
    )
    return transformers.Wav2Vec2ForCTC(config).eval()


def _listen(model: Any, rows: int, samples: int) -> object:
    with torch.no_grad():
        return model(torch.randn(rows, samples)).logits


def _whisper() -> torch.nn.Module:
    from transformers.models.whisper import modeling_whisper

    config = modeling_whisper.WhisperConfig(
        d_model=64,
        encoder_layers=2,
        encoder_attention_heads=4,
        encoder_ffn_dim=128,
        max_source_positions=50,
    )
    return modeling_whisper.WhisperEncoder(config).eval()


def _encode(model: Any, rows: int) -> object:
    with torch.no_grad():
        return model(torch.randn(rows, 80, 100)).last_hidden_state


def _chronos() -> object:
    import transformers
    from chronos import ChronosBoltPipeline
    from chronos.chronos_bolt import ChronosBoltModelForForecasting

    config = transformers.T5Config(
        **T5,
        num_decoder_layers=1,
        vocab_size=2,
        use_cache=False,
        pad_token_id=0,
        decoder_start_token_id=0,
        chronos_config={
            "context_length": 64,
            "prediction_length": 16,
            "input_patch_size": 8,
            "input_patch_stride": 8,
            "quantiles": [0.1, 0.5, 0.9],
            "use_reg_token": True,
        },
    )
    return ChronosBoltPipeline(ChronosBoltModelForForecasting(config).eval())


def _forecast(pipeline: Any, rows: int, length: int, ahead: int) -> object:
    series = torch.randn(rows, length).cumsum(1)
    return pipeline.predict_quantiles(
        series, prediction_length=ahead, quantile_levels=[0.1, 0.5, 0.9]
    )


CASES = [
    Case(
        "transformers",
        "Wav2Vec2, CTC",
        _wav2vec2,
        [
            lambda model: _listen(model, 2, 800),
            lambda model: _listen(model, 1, 1203),
            lambda model: _listen(model, 3, 400),
        ],
    ),
    Case(
        "transformers",
        "Whisper, encoder",
        _whisper,
        [
            lambda model: _encode(model, 2),
            lambda model: _encode(model, 1),
            lambda model: _encode(model, 4),
        ],
    ),
    Case(
        "chronos-forecasting",
        "Chronos-Bolt",
        _chronos,
        [
            lambda pipeline: _forecast(pipeline, 2, 64, 16),
            lambda pipeline: _forecast(pipeline, 1, 40, 8),
            lambda pipeline: _forecast(pipeline, 3, 100, 16),
            lambda pipeline: _forecast(pipeline, 2, 64, 40),
        ],
        path="model",
    ),
]
