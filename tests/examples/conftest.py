import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[2]
EXAMPLES = REPOSITORY / "examples"

sys.path.insert(0, str(EXAMPLES))

WORDS = ["the", "a", "of", "in", "who", "what", "when", "wrote", "built", "river", "city", "was"]


@dataclass(frozen=True)
class Ran:
    """The result of a command line."""

    code: int
    out: str
    err: str

    def assert_error(self, message: str, code: int = 1) -> None:
        """Assert the exit code, and that the one error has a message and no traceback."""
        assert (self.code, self.out) == (code, ""), self.err
        assert self.err.count("error: ") == 1, self.err
        assert message in self.err.splitlines()[-1]
        assert "Traceback" not in self.err


Example = Callable[..., Ran]


@pytest.fixture(scope="session")
def processes() -> Iterator[subprocess.Popen[str]]:
    """Start the process that runs command lines, processes.py."""
    server = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "tests.examples.processes"],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    assert server.stdout.readline() == "ready\n"
    yield server
    server.communicate()


@pytest.fixture(scope="session")
def example(processes: subprocess.Popen[str], tmp_path_factory: pytest.TempPathFactory) -> Example:
    """Run the script of an example in a new process, with one thread."""

    def run(script: str, *arguments: object) -> Ran:
        folder = tmp_path_factory.mktemp("process")
        request = {
            "script": str(EXAMPLES / script),
            "arguments": [str(argument) for argument in arguments],
            "stdout": str(folder / "stdout"),
            "stderr": str(folder / "stderr"),
            "folder": str(folder),
        }
        assert processes.stdin is not None
        assert processes.stdout is not None
        processes.stdin.write(json.dumps(request) + "\n")
        processes.stdin.flush()
        code = int(processes.stdout.readline())
        return Ran(code, *((folder / name).read_text() for name in ("stdout", "stderr")))

    return run


@pytest.fixture(scope="session")
def shared_qa() -> Path:
    """Return the folder of the trained question-answering model and its data."""
    folder = REPOSITORY.parent / "shared" / "qa"
    if not folder.is_dir():
        pytest.skip("the trained question-answering model is not at ../shared/qa")
    return folder


@pytest.fixture(scope="session")
def tiny_qa_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a question-answering model with random weights, whose tokenizer has WORDS."""
    import torch
    from transformers import BertConfig, BertForQuestionAnswering, BertTokenizerFast

    folder = tmp_path_factory.mktemp("tiny_qa")
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "?", *WORDS]))
    tokenizer: Any = BertTokenizerFast(str(vocabulary))
    tokenizer.model_max_length = 64
    tokenizer.save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(WORDS) + 6,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        initializer_range=0.5,  # so that spans have different scores
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        BertForQuestionAnswering(config).save_pretrained(folder)
    return folder
