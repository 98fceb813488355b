from typing import ClassVar

import torch

from cpuaccel.testing import BackendContract, tiny_text_model


class TestJit(BackendContract):
    backend = "jit"


class TestJitUnfrozen(BackendContract):
    backend = "jit"
    options: ClassVar[dict[str, object]] = {"freeze": False}


class TestJitOnTransformers(BackendContract):
    backend = "jit"

    def model(self) -> torch.nn.Module:
        return tiny_text_model("BertForQuestionAnswering")
