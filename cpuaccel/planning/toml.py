"""Pipelines in TOML files: ``version = 1`` and ``[[steps]]``, or ``[tool.cpuaccel]``."""

import tomllib
from pathlib import Path
from typing import Annotated, Literal

import tomli_w
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    ValidationError,
)

from cpuaccel.errors import PipelineError, describe_invalid
from cpuaccel.model.precision import dtype_name, dtype_of
from cpuaccel.pipeline import Pipeline, Step


class StepTable(BaseModel):
    """A step in a file."""

    model_config = ConfigDict(extra="forbid")

    backend: str
    optional: bool = False
    options: dict[str, object] = Field(default_factory=dict)

    @property
    def step(self) -> Step:
        """The step."""
        step = Step(self.backend, optional=self.optional)
        step.options = self.options  # not as keywords: an option may be named `optional`
        return step


def _check_share(audit: bool | float) -> bool | float:
    if not isinstance(audit, bool) and not 0 <= audit < 1:
        raise ValueError("must be true, false or a share of the time below 1")
    return audit


class PipelineTable(BaseModel):
    """A pipeline file."""

    model_config = ConfigDict(extra="forbid")

    version: Literal[1]
    dtype: Literal["float32", "bfloat16"] | None = None
    disable_plugins: tuple[str, ...] = ()
    audit: Annotated[StrictBool | StrictFloat, AfterValidator(_check_share)] | None = None
    steps: list[StepTable]


def read_pipeline(path: str | Path) -> Pipeline:
    """Read a pipeline from a TOML file.

    In a file named ``pyproject.toml`` it is in the table ``[tool.cpuaccel]``, in any other file at
    the top level. Example:

        version = 1
        dtype = "bfloat16"
        disable_plugins = ["zentorch"]
        audit = 0.01

        [[steps]]
        backend = "bettertransformer"
        optional = true

        [[steps]]
        backend = "jit"
        options = { freeze = true }

    Raises:
        PipelineError: the file can't be read, or lists every mistake in it with its step.
    """
    path = Path(path)
    try:
        return parse_pipeline(path.read_bytes(), path)
    except OSError as error:
        raise PipelineError(f"pipeline file {path}", [f"can't be read: {error.strerror}"]) from None


def parse_pipeline(data: bytes, path: Path) -> Pipeline:
    """Read a pipeline from the bytes of a TOML file. See ``read_pipeline``."""
    subject = f"pipeline file {path}"
    try:
        table: object = tomllib.loads(data.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PipelineError(subject, [f"invalid TOML: {error}"]) from None
    except RecursionError:
        raise PipelineError(subject, ["nested too deeply: flatten it"]) from None
    if path.name == "pyproject.toml":
        for key in ("tool", "cpuaccel"):
            table = table.get(key) if isinstance(table, dict) else None
        if table is None:
            raise PipelineError(subject, ["no table [tool.cpuaccel]: add one"])
    try:
        parsed = PipelineTable.model_validate(table)
    except ValidationError as error:
        raise PipelineError(subject, _problems(error)) from None
    return Pipeline(
        tuple(table.step for table in parsed.steps),
        dtype_of(parsed.dtype),
        str(path),
        parsed.disable_plugins,
        parsed.audit,
    )


def write_pipeline(pipeline: Pipeline, path: Path) -> None:
    """Write a pipeline in the format of ``read_pipeline``; TypeError if TOML lacks a type."""
    table: dict[str, object] = {"version": 1}
    if pipeline.dtype is not None:
        table["dtype"] = dtype_name(pipeline.dtype)
    if pipeline.disable_plugins:
        table["disable_plugins"] = list(pipeline.disable_plugins)
    if pipeline.audit is not None:
        table["audit"] = pipeline.audit
    table["steps"] = [
        StepTable.model_validate(vars(step)).model_dump(exclude_defaults=True)
        for step in pipeline.steps
    ]
    path.write_text(tomli_w.dumps(table), encoding="utf-8")


def _problems(error: ValidationError) -> list[str]:
    """Describe every validation error with the step that it is in."""
    problems = []
    for invalid in error.errors():
        location = list(invalid["loc"])
        fields = PipelineTable.model_fields
        where = ""
        if len(location) > 1 and location[0] == "steps":
            where = f"step {int(location[1]) + 1}: "
            fields = StepTable.model_fields
            location = location[2:]
        problems.append(where + describe_invalid(invalid, location, fields))
    return problems
