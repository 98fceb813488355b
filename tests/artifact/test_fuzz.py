"""An artifact with changed files raises an ``ArtifactError`` or loads a correct model.

``CPUACCEL_FUZZ_INPUTS`` is the number of inputs of each test, for long runs by hand, which draw
new inputs each time.
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
"""Timeout of one input in seconds of processor time."""

fuzz = settings(
    max_examples=int(INPUTS or 60),
    derandomize=INPUTS is None,
    database=None,
    deadline=None,
    phases=[Phase.generate],  # the change is printed; shrinking takes minutes
    suppress_health_check=list(HealthCheck),
)


@fuzz
@given(data=st.data(), trusted=st.booleans())
def test_accidental_changes(data: st.DataObject, trusted: bool, saved_encoder: SavedFiles) -> None:
    """The checksums are unchanged, so only what was saved can load."""
    _, files = draw(data, bytes_of(saved_encoder) | lines_of_sums(saved_encoder))
    fast = load(files, encoder, trusted)
    if fast is not None:
        for inputs in (batch(), batch(3, 9)):
            assert_correct(fast, encoder(), inputs, 1e-5)


@fuzz
@given(data=st.data())
def test_deliberate_changes(data: st.DataObject, saved_encoder: SavedFiles) -> None:
    """With recomputed checksums, the outputs still match the stored ones."""
    name, files = draw(data, bytes_of(saved_encoder) | fields_of(saved_encoder))
    fast = load(files.signed(), encoder)
    if fast is not None:
        assert_correct(fast, encoder(), batch(), tolerance_of(fast, name))


@needs_torch_2
@fuzz
@given(data=st.data())
def test_deliberate_changes_of_a_transformers_model(
    data: st.DataObject, saved_bert: SavedFiles
) -> None:
    name, files = draw(data, fields_of(saved_bert) | bytes_of(saved_bert))
    fast = load(files.signed(), None)
    if fast is not None:
        assert_correct(fast, bert(), bert_batch(), tolerance_of(fast, name))


def draw(data: st.DataObject, strategy: st.SearchStrategy[Mutated]) -> Mutated:
    name, files = data.draw(strategy)
    note(f"{name} is {files.files[name][:5000]!r}")
    return name, files


def load(
    files: SavedFiles, model: Callable[[], torch.nn.Module] | None, trusted: bool = False
) -> cpuaccel.OptimizedModel | None:
    with tempfile.TemporaryDirectory() as place, warnings.catch_warnings(), time_limit():
        warnings.simplefilter("ignore")  # pytest turns warnings into errors
        folder = files.write(Path(place) / "a")
        try:
            return cpuaccel.load(folder, model and model(), trust_engine_files=trusted)
        except cpuaccel.ArtifactError as error:
            message = str(error)
    assert message.startswith(f"cannot load {folder}: ")
    assert len(message) < 3000
    return None


def assert_correct(
    fast: cpuaccel.OptimizedModel,
    original: torch.nn.Module,
    inputs: dict[str, torch.Tensor],
    tolerance: float,
) -> None:
    with torch.no_grad():
        expected = original(**inputs)
    output = fast(**inputs)
    assert type(output) is type(expected)
    for got, wanted in zip(tensors(output), tensors(expected), strict=True):
        assert float((got - wanted).abs().max()) <= tolerance * float(wanted.abs().max())


def tolerance_of(fast: cpuaccel.OptimizedModel, changed: str) -> float:
    """Return the tolerance: a changed pipeline may have another precision."""
    fidelity = fast.report.variants[0].fidelity
    if changed != "pipeline.toml" or fidelity is None:
        return 3e-4
    return fidelity.tolerance + 1e-4


@contextmanager
def time_limit() -> Iterator[None]:
    def raise_late(*_: object) -> None:
        raise AssertionError(f"loading took more than {LONGEST} s")

    before = signal.signal(signal.SIGPROF, raise_late)
    signal.setitimer(signal.ITIMER_PROF, LONGEST)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
