"""Any file and any call: a clear error or the original's output, never anything else.

CPUACCEL_FUZZ_EXAMPLES sets the number of inputs for each test; docs/guarantees.md lists how many
were tried.
"""

import contextlib
import copy
import os
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
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
def test_any_bytes_in_a_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "pipeline.toml"
    path.write_bytes(content)
    with pytest.raises(cpuaccel.PipelineError, match="pipeline file"):
        read_pipeline(path)


@fuzzed
@given(TABLES, st.sampled_from(["pipeline.toml", "pyproject.toml"]))
def test_any_table_in_a_file(tmp_path: Path, table: dict[str, object], name: str) -> None:
    import tomli_w

    path = tmp_path / name
    content = table if name == "pipeline.toml" else {"tool": {"cpuaccel": table}}
    path.write_text(tomli_w.dumps(content), encoding="utf-8")
    with contextlib.suppress(cpuaccel.PipelineError):
        read = read_pipeline(path)
        # Without disable_plugins, which would also block plugins in other tests.
        cpuaccel.explain(torch.nn.ReLU(), pipeline=Pipeline(read.steps, read.dtype, read.source))


MODEL = MaskedEncoder.seeded()
FAST = {
    name: cpuaccel.optimize(MODEL, [name], example_inputs=batch(), strict=True) for name in ("jit",)
}

TENSORS = st.builds(
    lambda size, length, dtype, high: torch.randint(0, high, (size, length)).to(dtype),
    st.integers(0, 4),
    st.integers(0, 20),
    st.sampled_from([torch.int64, torch.int32, torch.bool, torch.float32]),
    st.sampled_from([2, 50, 60]),
)
ODD = st.sampled_from([None, 3, "word", [1, 2], torch.ones(2), torch.ones(1, 2, 3)])
ARGUMENTS = st.lists(TENSORS | ODD, max_size=3)
NAMED = st.dictionaries(
    st.sampled_from(["input_ids", "attention_mask", "labels"]), TENSORS | ODD, max_size=3
)


def outcome(model: torch.nn.Module, args: list[object], kwargs: dict[str, object]) -> object:
    try:
        with torch.no_grad():
            return model(*args, **kwargs)
    except Exception as error:
        return type(error)


@fuzzed
@pytest.mark.parametrize("engine", FAST)
@given(args=ARGUMENTS, kwargs=NAMED, seed=st.integers(0, 99))
def test_any_call(engine: str, args: list[object], kwargs: dict[str, object], seed: int) -> None:
    assume(args or kwargs)
    shared = copy.copy(FAST[engine]._variants)
    shared._variants = dict(shared._variants)
    fast = OptimizedModel(shared)
    expected, found = outcome(MODEL, args, kwargs), outcome(fast, args, kwargs)
    if isinstance(expected, type):
        assert found is expected
        return
    assert isinstance(expected, tuple)
    assert isinstance(found, type(expected))
    for mine, theirs in zip(found, expected):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4, equal_nan=True)


SIZES = st.tuples(st.integers(1, 6), st.integers(1, 40), st.integers(0, 39), st.booleans())


@fuzzed
@pytest.mark.parametrize("engine", FAST)
@given(sizes=SIZES)
def test_any_shape_and_padding(engine: str, sizes: tuple[int, int, int, bool]) -> None:
    size, length, padding, left = sizes
    inputs = batch(size, length)
    if padding := min(padding, length - 1):
        where = slice(None, padding) if left else slice(-padding, None)
        inputs["attention_mask"][::2, where] = 0
    before = FAST[engine].report.calls["optimized"]
    output = FAST[engine](**inputs)
    assert FAST[engine].report.calls["optimized"] == before + 1
    with torch.no_grad():
        torch.testing.assert_close(output, MODEL(**inputs), rtol=1e-3, atol=1e-4)
