from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from tests.cli.generate.models import CHAT, EOS, VOCABULARY, make_llama, saved


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, and a tokenizer with a chat template."""
    return saved(make_llama(), CHAT, tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same without a chat template."""
    return saved(make_llama(), None, tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="session")
def t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an encoder-decoder model."""
    torch.manual_seed(0)
    config_class: Any = transformers.T5Config
    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
    config = config_class(
        vocab_size=VOCABULARY, decoder_start_token_id=0, eos_token_id=EOS, **sizes
    )
    model = transformers.T5ForConditionalGeneration(config)
    return saved(model, None, tmp_path_factory.mktemp("t5"))
