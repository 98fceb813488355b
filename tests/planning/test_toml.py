from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cpuaccel.errors import PipelineError
from cpuaccel.pipeline import Pipeline, Step
from cpuaccel.planning.resolve import resolve_here
from cpuaccel.planning.toml import read_pipeline, write_pipeline


def write(folder: Path, text: str, name: str = "pipeline.toml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def problems(path: Path) -> tuple[str, ...]:
    with pytest.raises(PipelineError) as caught:
        read_pipeline(path)
    assert str(caught.value).startswith(f"pipeline file {path}: ")
    return caught.value.problems


def test_reading_the_documented_example(tmp_path: Path) -> None:
    documented = read_pipeline.__doc__
    assert documented is not None
    path = write(tmp_path, documented.split("Example:")[1].split("Raises:")[0])
    assert read_pipeline(path) == Pipeline(
        (Step("bettertransformer", optional=True), Step("jit", freeze=True)),
        torch.bfloat16,
        str(path),
        disable_plugins=("zentorch",),
        audit=0.01,
    )


def test_reading_from_pyproject(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
        [project]
        name = "anything"
        [tool.cpuaccel]
        version = 1
        [[tool.cpuaccel.steps]]
        backend = "jit"
        """,
        "pyproject.toml",
    )
    assert read_pipeline(path).steps == (Step("jit"),)


def test_a_pyproject_without_the_table(tmp_path: Path) -> None:
    path = write(tmp_path, "[project]\nname = 'x'\n", "pyproject.toml")
    assert problems(path) == ("no table [tool.cpuaccel]: add one",)


def test_a_pyproject_with_another_value_as_tool(tmp_path: Path) -> None:
    path = write(tmp_path, "tool = 3\n", "pyproject.toml")
    assert problems(path) == ("no table [tool.cpuaccel]: add one",)


def test_all_mistakes_at_once(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
        version = 2
        dtypo = "float32"
        dtype = "float16"
        [[steps]]
        backent = "jit"
        [[steps]]
        backend = "jit"
        optional = "perhaps"
        option = {}
        """,
    )
    assert set(problems(path)) == {
        "version: input should be 1, but got 2",
        "unknown name 'dtypo'. Did you mean 'dtype'? Available: version, dtype, "
        "disable_plugins, audit, steps",
        "dtype: input should be 'float32' or 'bfloat16', but got 'float16'",
        "step 1: 'backend' is missing: add it",
        "step 1: unknown name 'backent'. Did you mean 'backend'? Available: backend, "
        "optional, options",
        "step 2: optional: input should be a valid boolean, unable to interpret input, "
        "but got 'perhaps'",
        "step 2: unknown name 'option'. Did you mean 'options'? Available: backend, "
        "optional, options",
    }


def test_an_empty_file(tmp_path: Path) -> None:
    assert problems(write(tmp_path, "")) == (
        "'version' is missing: add it",
        "'steps' is missing: add it",
    )


def test_a_missing_file(tmp_path: Path) -> None:
    assert problems(tmp_path / "nowhere.toml") == ("can't be read: No such file or directory",)


def test_a_file_with_invalid_toml(tmp_path: Path) -> None:
    (problem,) = problems(write(tmp_path, "version = = 1"))
    assert problem.startswith("invalid TOML: ")
    assert "line 1" in problem


def test_a_file_with_invalid_utf8(tmp_path: Path) -> None:
    path = tmp_path / "pipeline.toml"
    path.write_bytes(b"version = 1 # \xff\xfe")
    (problem,) = problems(path)
    assert problem.startswith("invalid TOML: ")


def test_an_option_may_have_any_name(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        'version = 1\n[[steps]]\nbackend = "jit"\noptions = { optional = 1, backend = 2 }\n',
    )
    (step,) = read_pipeline(path).steps
    assert step.options == {"optional": 1, "backend": 2}
    assert not step.optional


names = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)
values = st.recursive(
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(blacklist_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)


@st.composite
def steps(draw: st.DrawFn) -> Step:
    step = Step(draw(names), optional=draw(st.booleans()))
    step.options = draw(st.dictionaries(names, values, max_size=3))
    return step


@given(
    steps=st.lists(steps(), max_size=4),
    dtype=st.sampled_from([None, torch.float32, torch.bfloat16]),
)
def test_read_pipeline_inverts_write_pipeline(
    tmp_path_factory: pytest.TempPathFactory, steps: list[Step], dtype: torch.dtype | None
) -> None:
    path = tmp_path_factory.getbasetemp() / "roundtrip.toml"
    write_pipeline(Pipeline(tuple(steps), dtype), path)
    assert read_pipeline(path) == Pipeline(tuple(steps), dtype, str(path))


def test_typed_options_are_written_with_the_backends_name(tmp_path: Path) -> None:
    plugin = pytest.importorskip("cpuaccel_plugins.int8")
    kinds = (plugin.Kind.HEAD, plugin.Kind.OTHER)
    options = plugin.Int8Options(max_error=0.05, float_kinds=kinds)
    path = tmp_path / "pipeline.toml"
    write_pipeline(Pipeline.from_steps([Step(options)]), path)
    (step,) = read_pipeline(path).steps
    assert step == Step("int8", max_error=0.05, float_kinds=["head", "other"])
    ((resolved,),) = resolve_here(read_pipeline(path))
    assert resolved.backend.options == options


def test_an_option_that_toml_cannot_hold(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        write_pipeline(Pipeline.from_steps([Step("jit", dtype=torch.float32)]), tmp_path / "p.toml")


@pytest.mark.parametrize("audit", [True, False, 0.25])
def test_audit_is_read_and_written(tmp_path: Path, audit: bool | float) -> None:
    path = tmp_path / "audited.toml"
    write_pipeline(Pipeline((Step("jit"),), audit=audit), path)
    pipeline = read_pipeline(path)
    assert pipeline.audit == audit
    assert type(pipeline.audit) is type(audit)


def test_an_audit_of_all_the_time_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, 'version = 1\naudit = 2.5\n[[steps]]\nbackend = "jit"\n')
    (problem,) = problems(path)
    assert "audit" in problem
