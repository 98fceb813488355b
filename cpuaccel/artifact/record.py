"""``artifact.json``: the model, the settings, the calls, the host and the versions."""

import json
from collections.abc import Iterable
from typing import Annotated, Literal, Self

import torch
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    ValidationError,
    model_validator,
)

import cpuaccel
from cpuaccel.artifact.contents import Contents
from cpuaccel.artifact.layout import FORMAT, RECORD, VERSION
from cpuaccel.pipeline import Pipeline
from cpuaccel.planning.resolve import resolve_here
from cpuaccel.plugin.fingerprint import Fingerprint
from cpuaccel.plugin.host import host
from cpuaccel.plugin.manager import plugin_host
from cpuaccel.report import Outcome

MAX_CALLS = 64


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Dtype(_Table):
    """A dtype among a call's inputs."""

    dtype: Annotated[str, Field(pattern=r"^(bool|u?int8|int(16|32|64)|b?float16|float(32|64))$")]

    def to_torch(self) -> torch.dtype:
        """Return the dtype."""
        dtype = getattr(torch, self.dtype)
        assert isinstance(dtype, torch.dtype)
        return dtype


Constant = StrictBool | StrictInt | StrictFloat | StrictStr | Dtype | None

Identifier = Annotated[str, Field(pattern=r"^[^\W\d]\w*$")]
"""Backends may generate code that uses the names of inputs."""

Precision = Literal["float32", "bfloat16"] | None


class Script(_Table):
    """A TorchScript file, and how to call it."""

    file: str
    dtype: Precision  # of the weights, null for the original's
    autocast: Precision  # null for none
    tolerance: Annotated[float, Field(ge=0)]  # the largest of the applied backends
    outcomes: tuple[Outcome, ...]


class Call(_Table):
    """A call that a variant was built for. Its tensors are in ``examples.safetensors``."""

    signature: str  # for display
    tensors: tuple[Identifier, ...]
    constants: dict[Identifier, Constant]
    answers: tuple[str, ...]  # paths of the tensors in the original's output, in order
    script: Script | None


class Model(_Table):
    """The model that the weights belong to."""

    name: str
    model_type: str | None = None  # null if the caller has to make the model, for ``reason``
    attention: Literal["eager", "sdpa"] | None = None
    reason: str = ""

    @property
    def packages(self) -> tuple[str, ...]:
        """Distributions that loading needs for the model's code."""
        return () if self.model_type is None else ("transformers",)


class Settings(_Table):
    """The arguments of ``optimize`` that are not part of the pipeline."""

    tolerance: Annotated[float, Field(ge=0)] | None
    strict: bool
    keep_original: bool
    freeze_values: bool = False
    audit: bool | Annotated[float, Field(ge=0, le=1)] = True


class Record(_Table):
    """The whole of ``artifact.json``."""

    format: Literal["cpuaccel artifact"] = FORMAT
    version: Literal[1, 2] = VERSION
    model: Model
    settings: Settings
    calls: Annotated[tuple[Call, ...], Field(max_length=MAX_CALLS)]
    prompt: Call | None = None  # where the pipeline serves ``generate``
    tied: dict[str, str]  # other names of shared weights, with the stored name
    made: Fingerprint

    @model_validator(mode="after")
    def _has_an_example(self) -> Self:
        if not self.calls and self.prompt is None:
            raise ValueError("calls are empty, and there is no prompt")
        return self


def fingerprint(pipeline: Pipeline, packages: Iterable[str]) -> Fingerprint:
    """Make the fingerprint of this host for a pipeline."""
    (resolved,) = resolve_here(pipeline)
    backends = [step.backend.name for step in resolved]
    return Fingerprint.from_host(host(), plugin_host(), backends, packages)


def read_record(contents: Contents) -> Record:
    """Read ``artifact.json``."""
    data = contents.text(RECORD)
    _check_version(contents, data)
    try:
        return Record.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "the top level"
        raise contents.file_error(
            RECORD, f"is invalid at {field[:120]}: {first['msg'].lower()}"
        ) from None


def _check_version(contents: Contents, data: bytes) -> None:
    try:
        raw = json.loads(data)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise contents.file_error(RECORD, f"is invalid JSON: {str(error)[:120]}") from None
    version = raw.get("version") if isinstance(raw, dict) and raw.get("format") == FORMAT else None
    if not isinstance(version, int):
        raise contents.file_error(RECORD, f"must have the format {FORMAT!r} and a version")
    if version > VERSION:
        raise contents.error(
            f"it has format {version}, but cpuaccel {cpuaccel.__version__} reads format {VERSION}",
            "Upgrade cpuaccel, or save it again with this version",
        )
