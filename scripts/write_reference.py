"""Write the generated pages of the reference: commands, pipeline files, lock files and JSON.

    python scripts/write_reference.py

A test fails where a page is not what this writes.
"""

import json
from pathlib import Path

import typer
from pydantic import TypeAdapter
from typer.cli import get_docs_for_click

from cpuaccel.artifact.summary import Summary
from cpuaccel.cli.bench.results import CallRow, GenerateRow
from cpuaccel.cli.doctor import Advice
from cpuaccel.cli.main import app
from cpuaccel.planning.toml import PipelineTable
from cpuaccel.plugin.host import Host
from cpuaccel.plugin.verdict import Verdict
from cpuaccel.report import Outcome, VariantReport
from cpuaccel.tuning.decisions.lockfile import LockTable
from cpuaccel.tuning.decisions.result import Row

FOLDER = Path(__file__).parents[1] / "docs" / "reference"

COMMANDS = """\
# Commands

Every command takes `--json`, which [json.md](json.md) describes. Exit codes: 0 for success, 1 for a failure, 2 for invalid
arguments or an invalid pipeline, 130 after Ctrl-C.

"""

FILES = """\
# Pipeline files and lock files

## A pipeline file
TOML, with the pipeline at the top level; in a `pyproject.toml` it is in the table `[tool.cpuaccel]`. Unknown keys are
errors. `cpuaccel plugins` lists the options of each backend.

```toml
version = 1
dtype = "bfloat16"
disable_plugins = ["zentorch"]   # as CPUACCEL_DISABLE_PLUGINS
audit = 0.01                     # true, false, or a share of the time below 1

[[steps]]
backend = "bettertransformer"
optional = true                  # skipped without a warning where it is not available

[[steps]]
backend = "jit"
options = { freeze = true }
```

JSON schema:

"""

LOCK = """\

## A lock file
TOML that `cpuaccel tune --lock FILE` and `optimize(..., lock=FILE)` write; [tuning.md](../tuning.md#lock-files) says when it
is used. JSON schema:

"""

JSON = """\
# JSON

With `--json` a command prints one object on stdout, and everything else on stderr. `schema_version` is 1; it is raised when
a key changes its meaning or goes away, not when one is added. Infinity and NaN are the strings `inf`, `-inf` and `nan`.

| command | keys |
|---|---|
| `doctor` | `host` (Host), `bfloat16` (Verdict), `backends` (Verdict by name), `broken_plugins`, `blocked_plugins`, `advice` (Advice) |
| `plugins` | `plugins`: each with `plugin` and `backends` (`name`, `summary`, `takes`, `gives`, `before`, `excludes`, `requires`, `options`); `broken_plugins`, `blocked_plugins` |
| `explain` | `model`, `pipeline`, `dtype`, `precision` (Verdict), `steps`: each with `backend`, `optional`, `takes`, `gives` and a Verdict's keys. With `--backends auto`: `model`, `candidates`: each with `pipeline` and `precision`, the most promising first; `not_tried`: each with `name`, `reason`, `for_time` |
| `bench` | `model`, `processor`, `torch`, `threads`, `padding`, `interrupted`, `results` (CallRow without `case`); with `demo` also `nearest` |
| `bench --generate` | the same, and `tokens`, `num_beams`; `results` (GenerateRow without `case`) |
| `tune` | `model`, `host` (Host), `interrupted`, `target`, `winner`, `why`, `rule`, `rows` (Row, with `pipeline`, `median_ms`, `errors` and `break_even_calls`), `not_tried`, `batches`, `threads`, `own_precision`, `arguments`, `instances`, `metric`, `seconds`, `source`, `unfinished_budget`, `rebuilt`, `lock`, `html`; interrupted: `model`, `host`, `interrupted`, `rows` |
| `optimize` | `model`, `files`, `scripts`, and the report |
| `inspect` | Summary |
| `generate` | `model`, `prompt`, `chat`, `seed`, `interrupted`, `text`, `tokens`, `first_token_seconds`, `tokens_per_second`, and the report |

The report (`fast.report.to_dict()`): `pipeline`, `dtype`, `planned` (Outcome), `not_built`, `not_restored`, `variants` (VariantReport),
`calls`, `fallbacks`, `audited`, `largest_audited`, `generation`, `parts`, `tuning`.

"""

TYPES = (Host, Verdict, Advice, CallRow, GenerateRow, Row, Outcome, VariantReport, Summary)


def pages() -> dict[str, str]:
    """Return the pages by file name."""
    command = typer.main.get_command(app)
    commands = get_docs_for_click(obj=command, ctx=typer.Context(command), name="cpuaccel")
    _, _, commands = commands.partition("\n## ")
    schemas = "\n".join(
        f"## {kind.__name__}\n{_schema(TypeAdapter(kind), 'serialization')}" for kind in TYPES
    )
    files = FILES + _schema(TypeAdapter(PipelineTable), "validation")
    files += LOCK + _schema(TypeAdapter(LockTable), "validation")
    return {
        "commands.md": f"{COMMANDS}## {commands.strip()}\n",
        "pipeline_file.md": files,
        "json.md": JSON + schemas,
    }


def _schema(adapter: "TypeAdapter[object]", mode: str) -> str:
    schema = adapter.json_schema(mode="validation" if mode == "validation" else "serialization")
    return f"```json\n{json.dumps(schema, indent=1)}\n```\n"


if __name__ == "__main__":
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
