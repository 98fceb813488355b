import pytest
from pydantic import ValidationError

import cpuaccel
from cpuaccel.plugin.fingerprint import Fingerprint
from cpuaccel.testing import fake_host


def here(**facts: object) -> Fingerprint:
    return Fingerprint.from_host(
        fake_host(**facts), cpuaccel.plugin_host(), ["jit"], ["Transformers"]
    )


def test_equal_fingerprints_have_no_changes() -> None:
    assert here().changes(here()) == []
    assert here().packages["transformers"] == "5.23.0"
    assert here().plugins == {"jit": cpuaccel.plugin_host().origins["jit"]}


def test_changes_are_named_as_in_the_file() -> None:
    before = here(isa=frozenset({"avx2", "fma"}), torch_isa="AVX2")
    now = here(isa=frozenset({"avx2", "avx512f"}), torch_isa="AVX512", packages={"torch": "3.0"})
    assert before.changes(now) == [
        "torch_isa was AVX2, is AVX512",
        "packages.torch was 2.13.0+cpu, is 3.0",
        "packages.transformers was 5.23.0, is absent",
        "the processor lacks fma",
        "the processor also has avx512f",
    ]


AVX2_FLAGS = "aes avx avx2 bmi1 bmi2 f16c fma sse4_1 sse4_2"
XEON_FLAGS = f"""{AVX2_FLAGS} amx_bf16 amx_int8 amx_tile avx512_bf16 avx512_bitalg avx512_fp16
    avx512_vbmi2 avx512_vnni avx512_vpopcntdq avx512bw avx512cd avx512dq avx512f avx512ifma
    avx512vbmi avx512vl avx_vnni cldemote gfni movdir64b movdiri serialize tsxldtrk vaes
    vpclmulqdq waitpkg"""
AVX2, AMX = frozenset(AVX2_FLAGS.split()), frozenset(XEON_FLAGS.split())


def test_flags_that_matter_are_named_and_the_others_counted() -> None:
    without, amx = here(isa=AVX2), here(isa=AMX)
    named = (
        "amx_bf16, amx_int8, amx_tile, avx512_bf16, avx512_fp16, avx512_vnni, avx512bw, avx512dq, "
        "avx512f, avx512vl, avx_vnni"
    )
    assert amx.changes(without) == [f"the processor lacks {named} and 15 other flags"]
    assert without.changes(amx) == [f"the processor also has {named} and 15 other flags"]


def test_flags_that_matter_little_are_counted() -> None:
    assert here(isa=AVX2 | {"gfni"}).changes(here(isa=AVX2)) == ["the processor lacks 1 other flag"]


def test_unknown_fields_are_refused() -> None:
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        Fingerprint.model_validate({**here().model_dump(), "more": "x"})
