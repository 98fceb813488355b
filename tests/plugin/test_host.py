import json
import sys

import pytest
import torch
from packaging.version import Version

import cpuaccel
from cpuaccel.plugin.host import torch_isa
from cpuaccel.testing import fake_host

AVX512_BF16 = frozenset({"avx2", "avx512f", "avx512_bf16"})
AVX2 = frozenset({"avx2", "fma"})


def with_torch(version: str) -> cpuaccel.Host:
    return fake_host(packages={"torch": version})


@pytest.mark.parametrize(
    ("installed", "release"),
    [
        ("2.13.0+cpu", "2.13.0"),
        ("1.13.0a0+gitunknown", "1.13.0"),
        ("2.9.0.dev20250901+cpu", "2.9.0"),
        ("2.8.0rc3", "2.8.0"),
    ],
)
def test_version_is_the_release(installed: str, release: str) -> None:
    assert with_torch(installed).version("torch") == Version(release)


@pytest.mark.parametrize("installed", ["", "unknown", "two"])
def test_an_invalid_version_is_none(installed: str) -> None:
    assert with_torch(installed).version("torch") is None


def test_version_accepts_any_spelling_of_a_package() -> None:
    host = fake_host(packages={"intel-extension-for-pytorch": "2.8.0"})
    assert host.version("intel_extension_for_pytorch") == Version("2.8.0")
    assert host.version("Intel.Extension-for_PyTorch") == Version("2.8.0")


def test_meets_is_a_yes_if_requirements_are_met() -> None:
    assert with_torch("2.13.0+cpu").meets(["torch>=2.0"])
    assert with_torch("2.13.0+cpu").meets()


def test_debians_torch_meets_requirements_of_its_release() -> None:
    host = with_torch("1.13.0a0+gitunknown")
    assert host.meets(["torch>=1.13"])
    assert not host.meets(["torch>=2.0"])


def test_an_old_version_is_named_in_full() -> None:
    verdict = with_torch("1.13.0a0+gitunknown").meets(["torch>=2.0"])
    assert str(verdict) == (
        'torch 1.13.0a0+gitunknown is installed, >=2.0 is needed. Run: pip install "torch>=2.0"'
    )


def test_all_missing_packages_are_named() -> None:
    verdict = with_torch("2.8.0").meets(["torch>=2.0", "optimum<2", "halver"])
    assert verdict.reason == "optimum is not installed and halver is not installed"


def test_one_of_several_sets_is_enough() -> None:
    host = fake_host(packages={"transformers": "5.23.0"})
    assert host.meets(["optimum<2", "transformers<4.49"], ["transformers>=5"])


def test_if_no_set_is_met_every_set_is_explained() -> None:
    verdict = fake_host(packages={"transformers": "4.50"}).meets(
        ["optimum<2", "transformers<4.49"], ["transformers>=5"]
    )
    assert verdict.reason == (
        "optimum is not installed and transformers 4.50 is installed, <4.49 is needed; "
        "or transformers 4.50 is installed, >=5 is needed"
    )
    assert verdict.remedy == (
        'Run: pip install "optimum<2" "transformers<4.49", or: pip install "transformers>=5"'
    )


def test_an_invalid_version_meets_no_requirement() -> None:
    assert not with_torch("unknown").meets(["torch>=1.13"])


@pytest.mark.parametrize(
    ("isa", "speed", "expected"),
    [
        (AVX512_BF16, 3.0, True),
        (AVX512_BF16, 0.7, True),  # a busy machine
        (AVX512_BF16, 0.1, False),  # the flag is there, but torch does not use it
        (AVX2, 0.1, False),
        (AVX2, 0.9, False),
        (AVX2, 1.5, True),  # a virtual machine that hides the flag
        (frozenset({"bf16"}), 2.0, True),  # Arm
    ],
)
def test_bf16_needs_a_fast_probe(isa: frozenset[str], speed: float, expected: bool) -> None:
    assert bool(fake_host(isa=isa, bf16_speed=speed).bf16()) is expected


def test_emulated_bfloat16_is_refused_with_a_remedy() -> None:
    verdict = fake_host(isa=AVX2, torch_isa="AVX2", bf16_speed=0.05).bf16()
    assert verdict.reason == (
        "bfloat16 matrix products run at 0.05 times float32's speed on this processor "
        "(no bf16 flag; torch dispatches to AVX2)"
    )
    assert verdict.remedy.startswith("Use dtype=float32 here")


def test_the_bf16_verdict_names_the_isa_that_torch_uses() -> None:
    host = fake_host(isa=frozenset({"sse4_2"}), torch_isa="DEFAULT", bf16_speed=0.01)
    assert "torch dispatches to DEFAULT" in host.bf16().reason
    assert host.to_dict()["isa"] == ["sse4_2"]


def test_this_host() -> None:
    host = cpuaccel.host()
    assert host is cpuaccel.host()
    assert host.version("torch") == Version(Version(torch.__version__).base_version)
    assert host.version("cpuaccel") == Version(cpuaccel.__version__)
    assert host.python == ".".join(map(str, sys.version_info[:3]))
    assert host.threads >= 1
    assert host.cores >= 1
    assert host.memory > 2**20
    assert host.bf16_speed > 0
    assert host.torch_isa in torch.__config__.show()


def test_torch_isa_is_read_in_every_version_of_torch() -> None:
    assert torch_isa().isupper()


def test_to_dict_is_json_compatible() -> None:
    host = cpuaccel.host()
    assert json.loads(json.dumps(host.to_dict()))["cores"] == host.cores
