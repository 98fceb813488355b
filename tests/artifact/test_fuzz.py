"""Whatever is done to an artifact's files: an error that says so, or a model that answers right.

``CPUACCEL_FUZZ_INPUTS`` is the number of inputs for each test, for long runs by hand; these draw
other inputs each time.
"""

import os
import signal
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

import cpuaccel
from cpuaccel.model.output import tensors
from tests.artifact.mutations import Mutated, bytes_of, fields_of, lines_of_sums
from tests.artifact.parts import SavedFiles, bert, bert_batch, needs_torch_2
from tests.fake_backends import batch, encoder

INPUTS = os.environ.get("CPUACCEL_FUZZ_INPUTS")
LONGEST = 60
"""Seconds of computing after which an input counts as one that hangs."""

tried = settings(
    max_examples=int(INPUTS or 60),
    derandomize=INPUTS is None,
    database=None,
    deadline=None,
    phases=[Phase.generate],  # what was changed is told; making it smaller takes minutes
    suppress_health_check=list(HealthCheck),
)


@tried
@given(data=st.data(), trusted=st.booleans())
def test_broken_by_accident(data: st.DataObject, trusted: bool, saved_encoder: SavedFiles) -> None:
    """Nothing but what was saved is loaded: the hashes are the saved ones."""
    _, files = draw(data, bytes_of(saved_encoder) | lines_of_sums(saved_encoder))
    fast = load(files, encoder, trusted)
    if fast is not None:
        for inputs in (batch(), batch(3, 9)):
            right(fast, encoder(), inputs, 1e-5)


@tried
@given(data=st.data())
def test_broken_on_purpose(data: st.DataObject, saved_encoder: SavedFiles) -> None:
    """With hashes of what it was changed to, the stored answers are still given."""
    name, files = draw(data, bytes_of(saved_encoder) | fields_of(saved_encoder))
    fast = load(files.signed(), encoder)
    if fast is not None:
        right(fast, encoder(), batch(), accepted(fast, name))


@needs_torch_2
@tried
@given(data=st.data())
def test_a_transformers_model_broken_on_purpose(
    data: st.DataObject, saved_bert: SavedFiles
) -> None:
    name, files = draw(data, fields_of(saved_bert) | bytes_of(saved_bert))
    fast = load(files.signed(), None)
    if fast is not None:
        right(fast, bert(), bert_batch(), accepted(fast, name))


def draw(data: st.DataObject, strategy: st.SearchStrategy[Mutated]) -> Mutated:
    name, files = data.draw(strategy)
    note(f"{name} is {files.files[name][:5000]!r}")
    return name, files


def load(
    files: SavedFiles, model: Callable[[], torch.nn.Module] | None, trusted: bool = False
) -> cpuaccel.OptimizedModel | None:
    with tempfile.TemporaryDirectory() as place, warnings.catch_warnings(), in_time():
        warnings.simplefilter("ignore")  # here they would be errors, which they are to no user
        folder = files.write(Path(place) / "a")
        try:
            return cpuaccel.load(folder, model and model(), trust_engine_files=trusted)
        except cpuaccel.ArtifactError as error:
            message = str(error)
    assert message.startswith(f"loading {folder} was asked for")
    assert len(message) < 3000
    return None


def right(
    fast: cpuaccel.OptimizedModel,
    original: torch.nn.Module,
    inputs: dict[str, torch.Tensor],
    tolerance: float,
) -> None:
    with torch.no_grad():
        expected = original(**inputs)
    answer = fast(**inputs)
    assert type(answer) is type(expected)
    for mine, theirs in zip(tensors(answer), tensors(expected), strict=True):
        assert float((mine - theirs).abs().max()) <= tolerance * float(theirs.abs().max())


def accepted(fast: cpuaccel.OptimizedModel, changed: str) -> float:
    """A pipeline in another precision is a right one; its answers are as that precision's are."""
    fidelity = fast.report.variants[0].fidelity
    if changed != "pipeline.toml" or fidelity is None:
        return 3e-4
    return fidelity.tolerance + 1e-4


@contextmanager
def in_time() -> Iterator[None]:
    def late(*_: object) -> None:
        raise AssertionError(f"loading took more than {LONGEST} s")

    before = signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, LONGEST)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
