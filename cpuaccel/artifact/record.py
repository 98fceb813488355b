"""``artifact.json``: what was saved, in which precision, where and with what."""

import json
from collections.abc import Iterable
from typing import Annotated, Literal

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
)

import cpuaccel
from cpuaccel.artifact.contents import Contents
from cpuaccel.artifact.layout import FORMAT, RECORD, VERSION
from cpuaccel.errors import ArtifactError
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
    """A dtype among a call's inputs.

    Attributes:
        dtype: its name without ``torch.``.
    """

    dtype: Annotated[str, Field(pattern=r"^(bool|u?int8|int(16|32|64)|b?float16|float(32|64))$")]

    def of_torch(self) -> torch.dtype:
        """The dtype itself."""
        found = getattr(torch, self.dtype)
        assert isinstance(found, torch.dtype)
        return found


Constant = StrictBool | StrictInt | StrictFloat | StrictStr | Dtype | None

Identifier = Annotated[str, Field(pattern=r"^[^\W\d]\w*$")]
"""Backends may write programs in which inputs have their own names."""

Precision = Literal["float32", "bfloat16"] | None


class Script(_Table):
    """TorchScript, and how it has to be called.

    Attributes:
        file: its name.
        dtype: the precision that the weights were brought to, null for the original's.
        autocast: the dtype under whose autocast it runs, null for none.
        tolerance: what the backends that made it declare.
        outcomes: of the steps that made it.
    """

    file: str
    dtype: Precision
    autocast: Precision
    tolerance: Annotated[float, Field(ge=0)]
    outcomes: tuple[Outcome, ...]


class Call(_Table):
    """One way of calling that a variant was built for; its tensors are in the examples' file.

    Attributes:
        signature: the inputs with dtypes and shapes, for people.
        tensors: names of the inputs that are tensors, in order.
        constants: the other inputs.
        answers: where in the original's output its tensors stand, in order.
        script: TorchScript, where the pipeline ended in it.
    """

    signature: str
    tensors: tuple[Identifier, ...]
    constants: dict[Identifier, Constant]
    answers: tuple[str, ...]
    script: Script | None


class Model(_Table):
    """Whose weights these are.

    Attributes:
        name: the class's name, for people.
        model_type: what Transformers calls the architecture, where Transformers can make the model
            of ``config.json``; null where the caller has to.
        attention: the attention that it ran with.
        reason: why the caller has to.
    """

    name: str
    model_type: str | None = None
    attention: Literal["eager", "sdpa"] | None = None
    reason: str = ""

    @property
    def packages(self) -> tuple[str, ...]:
        """Distributions that its code is in, as far as loading needs them."""
        return () if self.model_type is None else ("transformers",)


class Settings(_Table):
    """The arguments of ``optimize`` that the pipeline does not hold."""

    tolerance: Annotated[float, Field(ge=0)] | None
    strict: bool
    keep_original: bool


class Record(_Table):
    """All of ``artifact.json``.

    Attributes:
        format: tells it from other JSON.
        version: of the format; a reader refuses what is newer than itself.
        model: whose weights these are.
        settings: arguments of ``optimize``.
        calls: the ways of calling, each with a stored example.
        tied: names of weights that are another's, by which the file holds them.
        made: with which machine and versions.
    """

    format: Literal["cpuaccel artifact"] = FORMAT
    version: Literal[1] = VERSION
    model: Model
    settings: Settings
    calls: Annotated[tuple[Call, ...], Field(min_length=1, max_length=MAX_CALLS)]
    tied: dict[str, str]
    made: Fingerprint


def fingerprint(pipeline: Pipeline, packages: Iterable[str]) -> Fingerprint:
    """What matters here for a pipeline.

    Args:
        pipeline: its backends count, and what they require.
        packages: further distributions: those that the model's own code is in.

    Raises:
        PipelineError: a backend is not offered here, or an option is none of its.
    """
    (resolved,) = resolve_here(pipeline)
    backends = [step.backend.name for step in resolved]
    return Fingerprint.from_host(host(), plugin_host(), backends, packages)


def read_record(contents: Contents) -> Record:
    """Read ``artifact.json``.

    Raises:
        ArtifactError: it was written in a newer format, or is none of this one.
    """
    data = contents.text(RECORD)
    _check_version(contents, data)
    try:
        return Record.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "it"
        raise contents.fault(
            RECORD, f"is malformed at {where[:120]}: {first['msg'].lower()}"
        ) from None


def _check_version(contents: Contents, data: bytes) -> None:
    try:
        raw = json.loads(data)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise contents.fault(RECORD, f"is no JSON: {str(error)[:120]}") from None
    version = raw.get("version") if isinstance(raw, dict) and raw.get("format") == FORMAT else None
    if not isinstance(version, int):
        raise contents.fault(RECORD, "is no record of an artifact")
    if version > VERSION:
        raise ArtifactError(
            f"{contents.asked}, which is written in format {version}; cpuaccel "
            f"{cpuaccel.__version__} reads format {VERSION}. Upgrade cpuaccel, or save it anew "
            "with this version"
        )
