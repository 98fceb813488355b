"""Plugins blocked by name: never imported, and listed as blocked."""

import json
from pathlib import Path

import pytest
import torch

import cpuaccel
from tests.conftest import Python

REPORT = """
import json, sys, logging, torch, cpuaccel
logging.basicConfig(format="%(message)s")
{before}
host = cpuaccel.plugin_host()
print(json.dumps({{
    "backends": sorted(host.backends),
    "blocked": [[b.plugin, b.by] for b in host.blocked],
    "imported": [n for n in ("cpuaccel_plugins.jit", "cpuaccel_plugins.ipex") if n in sys.modules],
}}))
"""

BUILT_IN = f"(cpuaccel {cpuaccel.__version__})"


def test_the_environment_variable_blocks(python: Python, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CPUACCEL_DISABLE_PLUGINS", "jit, ipex,,")
    found = json.loads(python(REPORT.format(before="")).stdout)
    assert found["blocked"] == [
        [f"ipex {BUILT_IN}", "CPUACCEL_DISABLE_PLUGINS"],
        [f"jit {BUILT_IN}", "CPUACCEL_DISABLE_PLUGINS"],
    ]
    assert found["imported"] == []
    assert "onednn" in found["backends"]
    assert not {"jit", "ipex"} & {*found["backends"]}


def test_an_unknown_name_is_logged(python: Python, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CPUACCEL_DISABLE_PLUGINS", "jitt")
    done = python(REPORT.format(before=""))
    assert done.stderr.startswith(
        "CPUACCEL_DISABLE_PLUGINS blocks an unknown plugin 'jitt'. Did you mean 'jit'? Installed: "
        "bettertransformer, "
    )
    assert "jit" in json.loads(done.stdout)["backends"]


FILE = 'version = 1\ndisable_plugins = ["ipex"]\n[[steps]]\nbackend = "{backend}"\n'

OPTIMIZE = """
try:
    cpuaccel.explain(torch.nn.ReLU(), pipeline=sys.argv[1])
except cpuaccel.PipelineError as error:
    print(str(error), file=sys.stderr)
"""


def test_a_pipeline_file_blocks_before_plugins_are_imported(python: Python, tmp_path: Path) -> None:
    path = tmp_path / "pipeline.toml"
    path.write_text(FILE.format(backend="jit"))
    found = json.loads(python(REPORT.format(before=OPTIMIZE), str(path)).stdout)
    assert found["blocked"] == [[f"ipex {BUILT_IN}", str(path)]]
    assert found["imported"] == ["cpuaccel_plugins.jit"]


def test_a_pipeline_file_blocks_a_plugin_that_is_imported(python: Python, tmp_path: Path) -> None:
    path = tmp_path / "pipeline.toml"
    path.write_text(FILE.format(backend="ipex"))
    done = python(REPORT.format(before="cpuaccel.backends()" + OPTIMIZE), str(path))
    assert "ipex" not in json.loads(done.stdout)["backends"]
    assert "unknown backend 'ipex'" in done.stderr
    assert f"Blocked by {path}: ipex {BUILT_IN}." in done.stderr


def test_disable_plugins_is_written_to_the_file(tmp_path: Path) -> None:
    from cpuaccel.planning.toml import read_pipeline, write_pipeline

    path = tmp_path / "pipeline.toml"
    path.write_text(FILE.format(backend="jit"))
    read = read_pipeline(path)
    assert read.disable_plugins == ("ipex",)
    write_pipeline(read, tmp_path / "again.toml")
    assert read_pipeline(tmp_path / "again.toml").disable_plugins == ("ipex",)


def test_an_artifact_blocks_before_plugins_are_imported(python: Python, tmp_path: Path) -> None:
    path, folder = tmp_path / "pipeline.toml", tmp_path / "saved"
    path.write_text(FILE.format(backend="jit"))
    saving = """
cpuaccel.optimize(
    torch.nn.Linear(2, 2).eval(), pipeline=sys.argv[1], example_inputs=torch.ones(1, 2)
).save(sys.argv[2])
"""
    loading = "cpuaccel.load(sys.argv[2], torch.nn.Linear(2, 2).eval())"
    for before in (saving, loading):
        found = json.loads(python(REPORT.format(before=before), str(path), str(folder)).stdout)
        assert found["imported"] == ["cpuaccel_plugins.jit"]


MODULE = "t_surely_never_imported"

IMPORTING = [
    f'version = 1\n[[steps]]\nbackend = "{MODULE}"\n',
    f'version = 1\n[[steps]]\nbackend = "{MODULE}:Backend"\n',
    f'version = 1\nplugins = ["{MODULE}"]\nsteps = []\n',
    f'version = 1\n[[steps]]\nbackend = "jit"\noptions = {{ freeze = "{MODULE}.x" }}\n',
    f'version = 1\n[[steps]]\nbackend = "jit"\nmodule = "{MODULE}"\n',
    f'version = 1\ndtype = "{MODULE}.float32"\nsteps = []\n',
    f'version = 1\ndisable_plugins = ["{MODULE}"]\nsteps = []\n',
]


def test_a_file_cannot_import_code_by_name(python: Python, tmp_path: Path) -> None:
    (tmp_path / f"{MODULE}.py").write_text("raise SystemExit('imported')")
    (tmp_path / "files.json").write_text(json.dumps(IMPORTING))
    code = """
import json, pathlib, sys, torch, cpuaccel
for text in json.loads(pathlib.Path(sys.argv[1]).read_text()):
    pathlib.Path(sys.argv[2]).write_text(text)
    try:
        print("accepted", cpuaccel.explain(torch.nn.ReLU(), pipeline=sys.argv[2]).pipeline)
    except cpuaccel.PipelineError as error:
        print("refused", len(error.problems))
print("imported" if sys.argv[3] in sys.modules else "not imported")
"""
    paths = [str(tmp_path / name) for name in ("files.json", "pipeline.toml")]
    done = python(code, *paths, MODULE, path=(tmp_path,))
    assert done.stdout.splitlines() == [
        *["refused 1"] * 6,
        "accepted (no steps)",
        "not imported",
    ]


def test_options_with_names_of_modules_stay_strings(tmp_path: Path) -> None:
    path = tmp_path / "pipeline.toml"
    path.write_text('version = 1\n[[steps]]\nbackend = "jit"\noptions = { freeze = "os.system" }\n')
    with pytest.raises(cpuaccel.PipelineError, match="freeze"):
        cpuaccel.explain(torch.nn.ReLU(), pipeline=path)
