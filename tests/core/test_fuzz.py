"""Whatever a user writes or passes leads to a clear error or to the original's output.

CPUACCEL_FUZZ_EXAMPLES is the number of inputs that each test tries; docs/guarantees.md has results.
"""

import contextlib
import copy
import os
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, assume, find, given, settings
from hypothesis import strategies as st

import cpuaccel
from cpuaccel.optimized import OptimizedModel
from cpuaccel.pipeline import Pipeline
from cpuaccel.planning.toml import read_pipeline
from cpuaccel.testing import MaskedEncoder
from tests.fake_backends import batch

EXAMPLES = int(os.environ.get("CPUACCEL_FUZZ_EXAMPLES", "60"))

fuzzed = settings(
    max_examples=EXAMPLES,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

KEYS = st.sampled_from(
    ["version", "dtype", "steps", "backend", "options", "optional", "disable_plugins", "tool", "x"]
)
SCALARS = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.booleans(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["jit", "float32", "bfloat16", "jitt", "os.system", ""]),
    st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=10),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=10,
)
STEP = st.fixed_dictionaries(
    {"backend": st.sampled_from(["jit", "ipex", "onednn", "none"]) | SCALARS},
    optional={
        "options": st.dictionaries(st.sampled_from(["freeze", "level", "x"]), VALUES, max_size=3),
        "optional": st.booleans() | SCALARS,
        "x": SCALARS,
    },
)
TABLES = st.dictionaries(KEYS, VALUES, max_size=5) | st.fixed_dictionaries(
    {"version": st.just(1) | SCALARS, "steps": st.lists(STEP, max_size=4) | VALUES},
    optional={"dtype": SCALARS, "disable_plugins": VALUES},
)


@fuzzed
@given(st.binary(max_size=200))
def test_any_bytes_in_a_file_raise_a_pipeline_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "pipeline.toml"
    path.write_bytes(content)
    with pytest.raises(cpuaccel.PipelineError, match="pipeline file"):
        read_pipeline(path)


def write_table(folder: Path, name: str, table: dict[str, object]) -> Path:
    import tomli_w

    path = folder / name
    content = table if name == "pipeline.toml" else {"tool": {"cpuaccel": table}}
    path.write_text(tomli_w.dumps(content), encoding="utf-8")
    return path


@fuzzed
@given(TABLES, st.sampled_from(["pipeline.toml", "pyproject.toml"]))
def test_any_table_in_a_file_is_explained_or_raises_a_pipeline_error(
    tmp_path: Path, table: dict[str, object], name: str
) -> None:
    path = write_table(tmp_path, name, table)
    with contextlib.suppress(cpuaccel.PipelineError):
        pipeline = read_pipeline(path)
        # Without the file's disable_plugins, which would last for the other tests.
        cpuaccel.explain(
            torch.nn.ReLU(), pipeline=Pipeline(pipeline.steps, pipeline.dtype, pipeline.source)
        )


def test_some_of_these_tables_are_valid(tmp_path: Path) -> None:
    def is_valid(table: dict[str, object]) -> bool:
        try:
            return bool(read_pipeline(write_table(tmp_path, "pipeline.toml", table)).steps)
        except cpuaccel.PipelineError:
            return False

    find(TABLES, is_valid, settings=settings(max_examples=1000, database=None))


@pytest.fixture(scope="module")
def model() -> MaskedEncoder:
    return MaskedEncoder.seeded()


@pytest.fixture(scope="module")
def fast(model: MaskedEncoder) -> OptimizedModel:
    return cpuaccel.optimize(model, ["jit"], example_inputs=batch(), strict=True)


def random_tensor(size: int, length: int, dtype: torch.dtype, high: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, high, (size, length), generator=generator).to(dtype)


TENSORS = st.builds(
    random_tensor,
    st.integers(0, 4),
    st.integers(0, 20),
    st.sampled_from([torch.int64, torch.int32, torch.bool, torch.float32]),
    st.sampled_from([2, 50, 60]),
    st.integers(0, 99),
)
ODD = st.sampled_from([None, 3, "word", [1, 2], torch.ones(2), torch.ones(1, 2, 3)])
ARGUMENTS = st.lists(TENSORS | ODD, max_size=3)
NAMED = st.dictionaries(
    st.sampled_from(["input_ids", "attention_mask", "labels"]), TENSORS | ODD, max_size=3
)


def output_or_error(
    model: torch.nn.Module, args: list[object], kwargs: dict[str, object]
) -> object:
    try:
        with torch.no_grad():
            return model(*args, **kwargs)
    except Exception as error:
        return type(error)


@fuzzed
@given(args=ARGUMENTS, kwargs=NAMED)
def test_any_call_returns_or_raises_what_the_original_does(
    model: MaskedEncoder, fast: OptimizedModel, args: list[object], kwargs: dict[str, object]
) -> None:
    assume(args or kwargs)
    variants = copy.copy(fast._variants)
    variants._by_way = {way: list(known) for way, known in variants._by_way.items()}
    variants._routes = dict(variants._routes)
    expected = output_or_error(model, args, kwargs)
    output = output_or_error(OptimizedModel(variants), args, kwargs)
    if isinstance(expected, type):
        assert output is expected
    else:
        assert type(output) is type(expected)
        assert isinstance(output, tuple)
        assert isinstance(expected, tuple)
        torch.testing.assert_close(
            tuple(output), tuple(expected), rtol=1e-3, atol=1e-4, equal_nan=True
        )


SIZES = st.tuples(st.integers(1, 6), st.integers(1, 40), st.integers(0, 39), st.booleans())


@fuzzed
@given(sizes=SIZES)
def test_any_shape_and_padding_is_optimized(
    model: MaskedEncoder, fast: OptimizedModel, sizes: tuple[int, int, int, bool]
) -> None:
    size, length, padding, left = sizes
    inputs = batch(size, length)
    if padding := min(padding, length - 1):
        columns = slice(None, padding) if left else slice(-padding, None)
        inputs["attention_mask"][::2, columns] = 0
    before = fast.report.calls["optimized"]
    output = fast(**inputs)
    assert fast.report.calls["optimized"] == before + 1
    with torch.no_grad():
        torch.testing.assert_close(output, model(**inputs), rtol=1e-3, atol=1e-4)
