import pytest
from pydantic import ValidationError

import cpuaccel
from cpuaccel.plugin.fingerprint import Fingerprint
from cpuaccel.testing import fake_host


def here(**facts: object) -> Fingerprint:
    return Fingerprint.from_host(
        fake_host(**facts), cpuaccel.plugin_host(), ["jit"], ["Transformers"]
    )


def test_what_is_the_same_has_no_changes() -> None:
    assert here().changes(here()) == []
    assert here().packages["transformers"] == "5.23.0"
    assert here().plugins == {"jit": cpuaccel.plugin_host().origins["jit"]}


def test_each_change_is_named_as_in_the_file() -> None:
    before = here(isa=frozenset({"avx2", "fma"}), torch_isa="AVX2")
    now = here(isa=frozenset({"avx2", "avx512f"}), torch_isa="AVX512", packages={"torch": "3.0"})
    assert before.changes(now) == [
        "the processor lacks fma",
        "the processor has avx512f besides",
        "torch_isa was AVX2, is AVX512",
        "packages.torch was 2.13.0+cpu, is 3.0",
        "packages.transformers was 5.23.0, is absent",
    ]


def test_it_holds_nothing_else() -> None:
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        Fingerprint.model_validate({**here().model_dump(), "more": "x"})
