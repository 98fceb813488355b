"""Models with several towers: features of one kind, by the method that Transformers has for it."""

from typing import Any

import pytest
import torch
import transformers

import cpuaccel
from tests.required import requires

pytestmark = requires("torch>=2.6", "transformers>=5")

SIZES = {"num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
TEXT = {**SIZES, "vocab_size": 99, "hidden_size": 32, "max_position_embeddings": 32}
TOKENS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
IMAGE = {**SIZES, "hidden_size": 32, "image_size": 16, "patch_size": 8}
AUDIO = {
    **{"spec_size": 64, "window_size": 4, "num_mel_bins": 16, "patch_size": 4},
    **{"patch_stride": [4, 4], "patch_embeds_hidden_size": 16, "hidden_size": 32},
    **{"depths": [1, 1], "num_attention_heads": [2, 2], "projection_dim": 16},
}


def clip() -> Any:
    config = transformers.CLIPConfig(
        text_config={**TEXT, **TOKENS}, vision_config=IMAGE, projection_dim=16
    )
    return transformers.CLIPModel(config)


def siglip() -> Any:
    text = {**TEXT, **TOKENS, "projection_size": 32}
    return transformers.SiglipModel(
        transformers.SiglipConfig(text_config=text, vision_config=IMAGE)
    )


def clap() -> Any:
    config = transformers.ClapConfig(
        text_config={**TEXT, "pad_token_id": 1}, audio_config=AUDIO, projection_dim=16
    )
    return transformers.ClapModel(config)


def tokens(batch: int) -> dict[str, torch.Tensor]:
    ids = torch.randint(3, 90, (batch, 9), generator=torch.Generator().manual_seed(batch))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def pixels(batch: int) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(batch)
    return {"pixel_values": torch.randn(batch, 3, 16, 16, generator=random)}


def spectrum(batch: int) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(batch)
    return {"input_features": torch.randn(batch, 1, 256, 16, generator=random)}


METHODS: list[tuple[Any, str, Any]] = [
    (clip, "get_text_features", tokens),
    (clip, "get_image_features", pixels),
    (siglip, "get_text_features", tokens),
    (siglip, "get_image_features", pixels),
    (clap, "get_text_features", tokens),
    (clap, "get_audio_features", spectrum),
]


@pytest.mark.parametrize(
    ("make", "method", "inputs"),
    METHODS,
    ids=[f"{make.__name__}-{name}" for make, name, _ in METHODS],
)
def test_features(make: Any, method: str, inputs: Any) -> None:
    torch.manual_seed(0)
    model = make().eval()
    fast: Any = cpuaccel.optimize(model, ["onednn"], strict=True)
    for batch in (2, 3):
        found = getattr(fast, method)(**inputs(batch)).pooler_output
        with torch.no_grad():
            expected = getattr(model, method)(**inputs(batch)).pooler_output
        assert found.shape[0] == batch
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        assert not found.requires_grad
    assert fast.report.calls == {"optimized": 2}
    kind = method.split("_")[1]
    tower = fast.report.parts["vision_model" if kind == "image" else f"{kind}_model"]
    assert tower.applied == ("onednn",)
