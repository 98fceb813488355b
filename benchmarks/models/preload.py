"""What most cells import, loaded once in the process from which those of the cells are forked.

cpuaccel is not among it: its behavior depends on whether its process was forked.

PyPI has torchvision for torch 2.13 only with CUDA. Its library of operators can't be loaded beside
torch's CPU build, and importing torchvision then fails at the first operator that it registers a
function for. Declaring these is enough: no model of the table calls one.
"""
# ruff: noqa: E402  # what is imported reads the environment

import os

os.environ |= {
    "CI": "1",
    "HF_HUB_OFFLINE": "1",
    "ORT_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "YOLO_OFFLINE": "true",
}

import torch

for _name in ("nms", "qnms"):
    torch.library.define(
        f"torchvision::{_name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
    )

import onnxscript  # noqa: F401
import torch._dynamo
import torch._inductor
import torch.onnx
import torchvision  # noqa: F401
import transformers.models.bert.modeling_bert  # noqa: F401
