"""What a saved folder keeps of the build for ``generate``: restored, compared, refused, shared."""

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import cpuaccel
from cpuaccel.plugin.fingerprint import Fingerprint
from tests.artifact.parts import SavedFiles, edit_json, sign
from tests.conftest import Offer
from tests.generation.broken_steppers import FaithfulStepping
from tests.generation.models import decoder, left_padded, prompt

PIPELINES = (
    [cpuaccel.Step("onednn")],
    [cpuaccel.Step("int8")],
    [cpuaccel.Step("int8", int4_names=("*.0.*",))],
)

MAPPING = re.compile(r"kept\.bin\n(?:.*\n)*?VmFlags")


def optimized(name: str, pipeline: Any = ("int8",), **settings: Any) -> Any:
    fast: Any = cpuaccel.optimize(decoder(name), pipeline, **settings)
    fast.prepare_generation()
    return fast


def is_restored(fast: Any) -> bool:
    generation = fast.report.generation
    assert generation.stepper is not None
    return bool(generation.outcome.evidence.get("loaded_from") == "kept.bin")


def tokens(fast: Any) -> Any:
    """Generate for a batch that is padded on the left."""
    return fast.generate(**left_padded(), max_new_tokens=9, do_sample=False)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> SavedFiles:
    folder = tmp_path_factory.mktemp("kept") / "saved"
    optimized("llama").save(folder)
    return SavedFiles.read(folder)


@pytest.fixture
def saved(files: SavedFiles, tmp_path: Path) -> Path:
    return files.write(tmp_path / "saved")


@pytest.mark.parametrize("pipeline", PIPELINES, ids=["onednn", "int8", "int4"])
@pytest.mark.parametrize("name", ["llama", "gemma3", "gpt2", "qwen3_moe"])
def test_a_restored_model_generates_as_the_saved_one(
    name: str, pipeline: list[cpuaccel.Step], tmp_path: Path
) -> None:
    fast = optimized(name, pipeline)
    fast.save(tmp_path / "saved")
    loaded: Any = cpuaccel.load(tmp_path / "saved")
    assert is_restored(loaded)
    assert torch.equal(tokens(loaded), tokens(fast))
    assert loaded.report.calls == {"optimized": 1}


def test_in_another_precision(tmp_path: Path, any_bf16: None) -> None:
    fast = optimized("qwen2", ["int8"], dtype="bfloat16")
    fast.save(tmp_path / "saved")
    loaded: Any = cpuaccel.load(tmp_path / "saved")
    assert is_restored(loaded)
    assert torch.equal(tokens(loaded), tokens(fast))


def test_the_original_is_the_saved_one(saved: Path) -> None:
    loaded: Any = cpuaccel.load(saved)
    original = decoder("llama")
    for name, weight in original.state_dict().items():
        assert torch.equal(loaded.original.state_dict()[name], weight)
    with torch.no_grad():
        expected, found = original(**prompt()).logits, loaded.original(**prompt()).logits
    assert torch.equal(found, expected)


def test_it_is_saved_again(saved: Path, tmp_path: Path) -> None:
    loaded: Any = cpuaccel.load(saved)
    loaded.save(saved)  # in place of the folder that is mapped
    loaded.save(tmp_path / "copy")
    for folder in (saved, tmp_path / "copy"):
        again: Any = cpuaccel.load(folder)
        assert is_restored(again)
        assert torch.equal(tokens(again), tokens(loaded))


def test_changed_weights_are_built_anew(saved: Path) -> None:
    loaded: Any = cpuaccel.load(saved)
    other = decoder("llama", seed=1)
    loaded.load_state_dict(other.state_dict())
    assert len(tokens(loaded))
    assert not is_restored(loaded)
    fast: Any = cpuaccel.optimize(other, ["int8"])
    assert torch.equal(tokens(loaded), tokens(fast))


def test_without_the_original_in_memory(tmp_path: Path) -> None:
    optimized("llama", keep_original=False).save(tmp_path / "saved")
    loaded: Any = cpuaccel.load(tmp_path / "saved")
    assert is_restored(loaded)
    assert len(tokens(loaded))


def test_another_number_of_threads(saved: Path) -> None:
    edit_json(saved, "kept.json", threads=1 + torch.get_num_threads())
    assert not is_restored(cpuaccel.load(saved))


@pytest.mark.parametrize("name", ["weights", "pipeline"])
def test_other_weights_or_options(name: str, saved: Path) -> None:
    edit_json(saved, "kept.json", **{name: "0" * 64})
    assert not is_restored(cpuaccel.load(saved))


def test_another_host(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = json.loads((saved / "artifact.json").read_text())["made"]
    for changed in (
        {"processor": "another"},
        {"isa": "another"},
        {"packages": {**made["packages"], "torch": "1"}},
    ):
        other = Fingerprint(**{**made, **changed})
        monkeypatch.setattr("cpuaccel.artifact.reading.fingerprint", lambda *_, other=other: other)
        assert not is_restored(cpuaccel.load(saved))


@pytest.mark.parametrize("name", ["kept.json", "kept.bin"])
def test_changed_files_are_refused(name: str, saved: Path) -> None:
    path = saved / name
    data = bytearray(path.read_bytes())
    for changed in (data[:-1], bytes([data[0] ^ 1]) + data[1:], data + b"\0"):
        path.write_bytes(changed)
        with pytest.raises(cpuaccel.ArtifactError, match=f"{name} was changed"):
            cpuaccel.load(saved)
    path.unlink()
    with pytest.raises(cpuaccel.ArtifactError, match=f"{name} is missing"):
        cpuaccel.load(saved)


@pytest.mark.parametrize(
    "changes",
    [
        {"stepper__facts": {}},
        {"stepper__facts__kinds": {}},
        {"stepper__facts__kinds": 3},
        {"stepper__facts__agreed": []},
        {"stepper__facts__agreed": ["x", None]},
        {"stepper__tensors": {}},
        {"stepper__step": "onednn"},
        {"stepper__step": "os.system"},
    ],
    ids=str,
)
def test_what_does_not_fit_is_built_anew(changes: dict[str, Any], saved: Path) -> None:
    edit_json(saved, "kept.json", **changes)
    loaded: Any = cpuaccel.load(saved)
    assert not is_restored(loaded) or "agreed" in str(changes)
    assert torch.equal(tokens(loaded), tokens(optimized("llama")))


@pytest.mark.parametrize(
    "changes",
    [
        {"threads": "two"},
        {"stepper__bandwidth": None},
        {"stepper__more": 1},
        {"stepper__tensors__lm_head": {"dtype": "int8", "shape": [2**40], "offset": 0}},
        {"stepper__tensors__lm_head": {"dtype": "int8", "shape": [-1], "offset": 0}},
        {"stepper__tensors__lm_head": {"dtype": "int8", "shape": [8], "offset": 8}},
        {"stepper__tensors__lm_head": {"dtype": "object", "shape": [8], "offset": 0}},
        {"stepper__tensors__lm_head": {"dtype": "int8", "shape": [2**47, 2**47], "offset": 0}},
    ],
    ids=str,
)
def test_an_invalid_description_is_refused(changes: dict[str, Any], saved: Path) -> None:
    edit_json(saved, "kept.json", **changes)
    with pytest.raises(cpuaccel.ArtifactError, match=re.escape("kept.json")):
        cpuaccel.load(saved)


def test_a_packed_weight_of_another_size(saved: Path) -> None:
    """The kernels must not read beyond it."""
    edit_json(saved, "kept.json", stepper__tensors__lm_head__shape=[64])
    assert not is_restored(cpuaccel.load(saved))


def test_packed_weights_of_another_model_are_not_used(saved: Path, tmp_path: Path) -> None:
    other: Any = cpuaccel.optimize(decoder("llama", seed=1), ["int8"])
    other.prepare_generation()
    other.save(tmp_path / "other")
    (saved / "kept.bin").write_bytes((tmp_path / "other" / "kept.bin").read_bytes())
    sign(saved)
    loaded: Any = cpuaccel.load(saved)
    assert not is_restored(loaded)
    assert torch.equal(tokens(loaded), tokens(optimized("llama")))


def test_processes_share_the_packed_weights(saved: Path) -> None:
    code = (
        "import sys, cpuaccel; fast = cpuaccel.load(sys.argv[1]); print('loaded', flush=True); "
        "sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(saved)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "loaded\n"
        loaded: Any = cpuaccel.load(saved)
        assert is_restored(loaded)
        maps = Path(f"/proc/{process.pid}/smaps").read_text(encoding="utf-8")
        process.communicate()
    (mapping,) = MAPPING.findall(maps)
    sizes = {name: int(size) for name, size in re.findall(r"(\w+): +(\d+) kB", mapping)}
    assert sizes["Rss"] > 0
    assert sizes["Private_Dirty"] == sizes["Anonymous"] == 0
    assert sizes["Shared_Clean"] + sizes["Shared_Dirty"] == sizes["Rss"]
    assert sizes["Pss"] < sizes["Rss"]


class Keeping(FaithfulStepping):
    """Keeps the head's weight in a form of its own, as a third party's backend may."""

    name = "keeping"

    def stepper(
        self, model: torch.nn.Module, host: cpuaccel.Host, unload: cpuaccel.Unload | None = None
    ) -> cpuaccel.Stepper:
        head = model.get_submodule("lm_head").weight.detach()  # type: ignore[union-attr,operator]
        kept = cpuaccel.Kept({"head": head.t().contiguous()}, {"built": [True, 1.5, None]})
        return self._with(super().stepper(model, host, unload), model, kept)

    def restore_stepper(
        self, model: torch.nn.Module, host: cpuaccel.Host, kept: cpuaccel.Kept
    ) -> cpuaccel.Stepper:
        assert kept.facts == {"built": [True, 1.5, None]}
        return self._with(super().stepper(model, host), model, kept)

    def _with(
        self, stepper: cpuaccel.Stepper, model: torch.nn.Module, kept: cpuaccel.Kept
    ) -> cpuaccel.Stepper:
        copied: Any = cpuaccel.shared_copy(model)

        def forward(**inputs: Any) -> object:
            output = copied(**inputs, output_hidden_states=True)
            output.logits = output.hidden_states[-1] @ kept.tensors["head"]
            return output

        return dataclasses.replace(stepper, forward=forward, kept=kept)


class RestoredWrongly(Keeping):
    name = "restored_wrongly"

    def restore_stepper(
        self, model: torch.nn.Module, host: cpuaccel.Host, kept: cpuaccel.Kept
    ) -> cpuaccel.Stepper:
        return super().restore_stepper(
            model, host, cpuaccel.Kept({"head": -kept.tensors["head"]}, kept.facts)
        )


class RaisingWhenRestored(Keeping):
    name = "raising_when_restored"

    def restore_stepper(
        self, model: torch.nn.Module, host: cpuaccel.Host, kept: cpuaccel.Kept
    ) -> cpuaccel.Stepper:
        raise RuntimeError("no engine")


class NotRestoring(FaithfulStepping):
    """Declares what it keeps, but not how it is restored."""

    name = "not_restoring"

    def stepper(
        self, model: torch.nn.Module, host: cpuaccel.Host, unload: cpuaccel.Unload | None = None
    ) -> cpuaccel.Stepper:
        return dataclasses.replace(super().stepper(model, host, unload), kept=cpuaccel.Kept())


@pytest.mark.parametrize("backend", [Keeping, RestoredWrongly, RaisingWhenRestored, NotRestoring])
def test_a_third_partys_stepper(
    backend: type[FaithfulStepping],
    offer: Offer,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    offer(backend)
    fast = optimized("llama", [backend.name])
    fast.save(tmp_path / "saved")
    loaded: Any = cpuaccel.load(tmp_path / "saved")
    assert is_restored(loaded) == (backend is Keeping)
    assert ("can't be used; rebuilding" in caplog.text) == (backend is not Keeping)
    assert torch.equal(tokens(loaded), tokens(fast))
    assert loaded.report.calls == {"optimized": 1}
