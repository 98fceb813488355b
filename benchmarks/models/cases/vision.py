"""Models that read images: Transformers, torchvision, timm, segmentation, YOLO."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from cases.case import LAYERS, Case


def images(rows: int, *size: int) -> torch.Tensor:
    """Random images of three channels."""
    return torch.rand(rows, 3, *size)


def _look(model: Any, pixels: torch.Tensor) -> object:
    with torch.no_grad():
        return model(pixels)


def looks(*sizes: tuple[int, ...]) -> Sequence[Callable[[Any], object]]:
    """Calls with images of these sizes: rows, height, width."""
    return [lambda model, size=size: _look(model, images(*size)) for size in sizes]


FIXED = looks((2, 32, 32), (1, 32, 32), (5, 32, 32))
ANY = looks((2, 64, 64), (1, 64, 64), (2, 96, 64), (1, 128, 96), (3, 64, 64))


def _vit() -> torch.nn.Module:
    import transformers

    config = transformers.ViTConfig(
        **LAYERS,
        image_size=32,
        patch_size=8,
        num_labels=5,
    )
    return transformers.ViTForImageClassification(config).eval()


def _swin() -> torch.nn.Module:
    import transformers

    config = transformers.SwinConfig(
        image_size=32, patch_size=2, embed_dim=16, depths=[2, 2], num_heads=[2, 4], window_size=4
    )
    return transformers.SwinModel(config).eval()


def _clip() -> torch.nn.Module:
    import transformers

    config = transformers.CLIPConfig(
        text_config={**LAYERS, "vocab_size": 300, "eos_token_id": 299, "bos_token_id": 1},
        vision_config={**LAYERS, "image_size": 32, "patch_size": 8},
        projection_dim=32,
    )
    return transformers.CLIPModel(config).eval()


def _match(model: Any, texts: int, length: int, pictures: int) -> object:
    ids = torch.randint(5, 290, (texts, length))
    ids[:, -1] = 299
    mask = torch.ones_like(ids)
    with torch.no_grad():
        output = model(input_ids=ids, attention_mask=mask, pixel_values=images(pictures, 32, 32))
    return output.logits_per_image, output.text_embeds


def _torchvision(name: str, **options: object) -> torch.nn.Module:
    from torchvision import models

    return models.get_model(name, weights=None, **options).eval()


def _timm(name: str, **options: object) -> torch.nn.Module:
    import timm

    return timm.create_model(name, pretrained=False, num_classes=10, **options).eval()


def _smp(architecture: str, encoder: str) -> torch.nn.Module:
    import segmentation_models_pytorch as smp

    return smp.create_model(architecture, encoder, encoder_weights=None, classes=3).eval()


def _yolo(name: str) -> object:
    import torchvision
    from ultralytics import YOLO
    from ultralytics.utils.nms import TorchNMS

    torchvision.ops.nms = TorchNMS.nms  # its own needs the library of operators
    yolo = YOLO(name, verbose=False)
    yolo.model.eval()
    return yolo


def _detect(yolo: Any, height: int, width: int, size: int) -> object:
    picture = np.random.RandomState(int(torch.randint(1000, ()))).randint(
        0, 255, (height, width, 3), dtype=np.uint8
    )
    # Random weights are never confident. Without overlaps all boxes stay, in the order of the grid.
    options = {"imgsz": size, "conf": 0.0, "iou": 1.0, "max_det": 20, "verbose": False}
    (result,) = yolo.predict(picture, device="cpu", **options)
    return result.boxes.data


YOLO_CALLS = [
    lambda yolo: _detect(yolo, 64, 64, 64),
    lambda yolo: _detect(yolo, 100, 64, 96),
    lambda yolo: _detect(yolo, 64, 64, 64),
    lambda yolo: _detect(yolo, 48, 96, 96),
]


CASES = [
    Case("transformers", "ViT, classification", _vit, FIXED),
    Case("transformers", "Swin", _swin, looks((2, 32, 32), (1, 32, 32), (2, 48, 32), (1, 40, 40))),
    Case(
        "transformers",
        "CLIP",
        _clip,
        [
            lambda model: _match(model, 2, 9, 3),
            lambda model: _match(model, 2, 9, 1),
            lambda model: _match(model, 5, 20, 2),
        ],
    ),
    Case("torchvision", "ResNet-18", lambda: _torchvision("resnet18", num_classes=10), ANY),
    Case("timm", "resnet10t", lambda: _timm("resnet10t"), ANY),
    Case(
        "timm",
        "vit_tiny_patch16_224",
        lambda: _timm("vit_tiny_patch16_224", img_size=32, depth=2),
        FIXED,
    ),
    Case("timm", "convnext_atto", lambda: _timm("convnext_atto", depths=(1, 1, 2, 1)), ANY),
    Case("segmentation-models-pytorch", "Unet, resnet18", lambda: _smp("unet", "resnet18"), ANY),
    Case(
        "segmentation-models-pytorch",
        "Segformer, mit_b0",
        lambda: _smp("segformer", "mit_b0"),
        ANY,
    ),
    Case(
        "ultralytics",
        "yolov8n",
        lambda: _yolo("yolov8n.yaml"),
        YOLO_CALLS,
        path="model",
        copied_to="predictor.model.backend.model",
    ),
]
