"""Pipelines of diffusers with an optimized UNet or transformer."""

from typing import Any

import torch

from cases.case import Case

UNET = {
    "sample_size": 16,
    "layers_per_block": 1,
    "block_out_channels": (16, 32),
    "norm_num_groups": 8,
    "attention_head_dim": 8,
}
"""The size of the networks that remove noise."""


def _ddpm() -> object:
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    unet = UNet2DModel(
        **UNET,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )
    return _quiet(DDPMPipeline(unet.eval(), DDPMScheduler(num_train_timesteps=20)))


def _vae() -> torch.nn.Module:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(16, 16),
        norm_num_groups=8,
        latent_channels=4,
        down_block_types=("DownEncoderBlock2D", "DownEncoderBlock2D"),
        up_block_types=("UpDecoderBlock2D", "UpDecoderBlock2D"),
    ).eval()


def _stable_diffusion() -> object:
    from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel

    unet = UNet2DConditionModel(
        **UNET,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=32,
    )
    pipeline = StableDiffusionPipeline(
        vae=_vae(),
        text_encoder=None,
        tokenizer=None,
        unet=unet.eval(),
        scheduler=DDIMScheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    return _quiet(pipeline)


def _dit() -> object:
    from diffusers import DDIMScheduler, DiTPipeline, DiTTransformer2DModel

    transformer = DiTTransformer2DModel(
        sample_size=8,
        num_layers=2,
        patch_size=2,
        attention_head_dim=8,
        num_attention_heads=4,
        in_channels=4,
        out_channels=8,
        attention_bias=True,
        num_embeds_ada_norm=1000,
        activation_fn="gelu-approximate",
        norm_type="ada_norm_zero",
        norm_elementwise_affine=False,
    )
    return _quiet(DiTPipeline(transformer.eval(), _vae(), DDIMScheduler()))


def _quiet(pipeline: Any) -> object:
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _paint(pipeline: Any, **arguments: object) -> object:
    # The pipeline draws its noise from torch's generator, which the caller has seeded.
    return pipeline(output_type="np", **arguments).images


def _prompted(pipeline: Any, rows: int, length: int, size: int) -> object:
    return _paint(
        pipeline,
        prompt_embeds=torch.randn(rows, length, 32),
        negative_prompt_embeds=torch.randn(rows, length, 32),
        height=size,
        width=size,
        num_inference_steps=3,
        guidance_scale=3.0,
    )


CASES = [
    Case(
        "diffusers",
        "DDPM, UNet2DModel",
        _ddpm,
        [
            lambda pipeline: _paint(pipeline, batch_size=2, num_inference_steps=4),
            lambda pipeline: _paint(pipeline, batch_size=1, num_inference_steps=5),
        ],
        path="unet",
    ),
    Case(
        "diffusers",
        "Stable Diffusion, UNet2DConditionModel",
        _stable_diffusion,
        [
            lambda pipeline: _prompted(pipeline, 1, 7, 32),
            lambda pipeline: _prompted(pipeline, 2, 7, 32),
            lambda pipeline: _prompted(pipeline, 1, 12, 48),
        ],
        path="unet",
    ),
    Case(
        "diffusers",
        "DiT, DiTTransformer2DModel",
        _dit,
        [
            lambda pipeline: _paint(pipeline, class_labels=[3], num_inference_steps=3),
            lambda pipeline: _paint(pipeline, class_labels=[1, 999], num_inference_steps=3),
        ],
        path="transformer",
    ),
]
