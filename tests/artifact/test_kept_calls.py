"""What a saved folder keeps of the build for calls: restored, compared, refused."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import cpuaccel
from cpuaccel.plugin.fingerprint import Fingerprint
from tests.artifact.parts import SavedFiles, edit_json, sign
from tests.conftest import Offer
from tests.fake_backends import Fake, Opaque
from tests.models import Inputs, batch, encoder, right, unpadded
from tests.plugins.engines import FACTS
from tests.required import BF16, requires

needs_onednn = requires(*FACTS["onednn"])

PIPELINES = [
    pytest.param(pipeline.split(","), marks=requires(*facts), id=pipeline)
    for pipeline, facts in (
        ("onednn", FACTS["onednn"]),
        ("bettertransformer,onednn", (*FACTS["onednn"], "transformers>=5")),
        ("int8", FACTS["int8"]),
        ("openvino", FACTS["openvino"]),
        ("openvino_int8", FACTS["openvino_int8"]),
        ("onnxruntime", FACTS["onnxruntime"]),
    )
]

WIDE = {"hidden_size": 128, "intermediate_size": 256}
"""Wide enough for linears that are packed."""

Load = Callable[[Path], Any]


def example(name: str = "bert-qa") -> Inputs:
    return batch(name, 4, 16, right if name.startswith("bert") else unpadded)


def optimized(pipeline: list[Any], name: str = "bert-qa", **settings: Any) -> Any:
    model = encoder(name, **(WIDE if name.startswith("bert") else {}))
    steps = [
        cpuaccel.Step(step, measure=False) if step in ("onednn", "int8") else step
        for step in pipeline
    ]
    return cpuaccel.optimize(model, steps, example_inputs=example(name), strict=True, **settings)


def is_restored(fast: Any) -> bool:
    (variant,) = fast.report.variants
    restored = variant.outcomes[-1].evidence.get("loaded_from") == "kept.bin"
    assert restored is not bool(fast.report.not_restored)
    return bool(restored)


def assert_equal_outputs(one: Any, other: Any, inputs: Inputs) -> None:
    expected, found = other(**inputs), one(**inputs)
    assert type(found) is type(expected)
    assert list(found) == list(expected)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> SavedFiles:
    folder = tmp_path_factory.mktemp("kept") / "saved"
    optimized(["onednn"]).save(folder)
    return SavedFiles.read(folder)


@pytest.fixture
def saved(files: SavedFiles, tmp_path: Path) -> Path:
    return files.write(tmp_path / "saved")


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_a_restored_model_returns_what_the_saved_one_does(
    pipeline: list[str], tmp_path: Path
) -> None:
    fast = optimized(pipeline)
    fast.save(tmp_path / "saved")
    loaded: Any = cpuaccel.load(tmp_path / "saved")
    assert is_restored(loaded)
    before, after = fast.report.variants[0], loaded.report.variants[0]
    assert after.domain == before.domain
    assert after.fidelity.tolerance == before.fidelity.tolerance
    assert [o.step for o in after.outcomes] == [o.step for o in before.outcomes]
    others = [(4, 16, right), (4, 16, unpadded), (2, 9, right), (7, 16, unpadded)]
    for rows, length, pad in others:
        assert_equal_outputs(loaded, fast, batch("bert-qa", rows, length, pad))
    assert set(loaded.report.calls) == {"optimized"}


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_a_changed_file_is_refused(pipeline: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    optimized(pipeline).save(folder)
    for name in ("kept.json", "kept.bin"):
        path = folder / name
        data = path.read_bytes()
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        with pytest.raises(cpuaccel.ArtifactError, match=f"{name} was changed"):
            cpuaccel.load(folder)
        path.unlink()
        with pytest.raises(cpuaccel.ArtifactError, match=f"{name} is missing"):
            cpuaccel.load(folder)
        path.write_bytes(data)
    assert is_restored(cpuaccel.load(folder))


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_another_host_builds_by_the_pipeline(
    pipeline: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast = optimized(pipeline)
    fast.save(tmp_path / "saved")
    fingerprint = cpuaccel.artifact.reading.fingerprint  # type: ignore[attr-defined]

    def elsewhere(*args: Any) -> Fingerprint:
        return Fingerprint(**{**dict(fingerprint(*args)), "processor": "another"})

    monkeypatch.setattr("cpuaccel.artifact.reading.fingerprint", elsewhere)
    loaded: Any = cpuaccel.load(tmp_path / "saved")
    assert not is_restored(loaded)
    assert "processor was" in loaded.report.not_restored
    assert "processor was" in str(loaded.report)
    assert loaded.report.to_dict()["not_restored"] == loaded.report.not_restored
    assert set(loaded.report.applied) == set(fast.report.applied)
    assert "loaded_from" not in loaded.report.outcomes[-1].evidence


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_a_restored_model_is_saved_again(pipeline: list[str], tmp_path: Path) -> None:
    fast = optimized(pipeline)
    fast.save(tmp_path / "saved")
    loaded: Any = cpuaccel.load(tmp_path / "saved")
    loaded.save(tmp_path / "saved")  # in place of the folder that is mapped
    again: Any = cpuaccel.load(tmp_path / "saved")
    assert is_restored(again)
    assert_equal_outputs(again, fast, example())


@needs_onednn
@pytest.mark.parametrize(
    "name",
    [
        "bert",
        pytest.param("modernbert-token", marks=requires("torch>=2.9")),
        "albert",
        "t5-encoder",
        "vit",
    ],
)
def test_other_architectures(name: str, tmp_path: Path) -> None:
    fast = optimized(["onednn"], name)
    fast.save(tmp_path / "saved")
    loaded: Any = cpuaccel.load(tmp_path / "saved")
    assert is_restored(loaded)
    expected, found = fast(**example(name)), loaded(**example(name))
    assert type(found) is type(expected)
    assert all(torch.equal(found[key], expected[key]) for key in expected)


@needs_onednn
@requires(BF16)
def test_in_another_precision(tmp_path: Path) -> None:
    fast = optimized(["onednn"], dtype="bfloat16")
    fast.save(tmp_path / "saved")
    loaded: Any = cpuaccel.load(tmp_path / "saved")
    assert is_restored(loaded)
    assert_equal_outputs(loaded, fast, example())


@needs_onednn
def test_the_original_is_not_called(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = type(encoder("bert-qa"))

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError

    monkeypatch.setattr(kind, "forward", refuse)
    assert is_restored(cpuaccel.load(saved))


@needs_onednn
def test_sizes_that_are_new_are_audited(saved: Path) -> None:
    loaded: Any = cpuaccel.load(saved)
    loaded(**example())
    assert loaded.report.audited == 0
    loaded(**batch("bert-qa", 4, 40, right))
    assert loaded.report.audited == 1


@needs_onednn
def test_changed_weights_are_built_anew(saved: Path) -> None:
    loaded: Any = cpuaccel.load(saved)
    with torch.no_grad():
        for weight in loaded.original.parameters():
            weight.mul_(2)
    loaded(**example())
    assert "loaded_from" not in loaded.report.variants[-1].outcomes[-1].evidence
    with torch.no_grad():
        expected = loaded.original(**example())
    torch.testing.assert_close(loaded(**example()).start_logits, expected.start_logits)


@needs_onednn
def test_weights_that_changed_before_saving_are_not_kept(tmp_path: Path) -> None:
    fast = optimized(["onednn"])
    with torch.no_grad():
        fast.original.get_parameter("qa_outputs.bias").add_(1)
    fast.save(tmp_path / "saved")
    assert not (tmp_path / "saved" / "kept.json").exists()


@needs_onednn
def test_a_model_of_transformers_may_be_passed(saved: Path) -> None:
    loaded: Any = cpuaccel.load(saved, encoder("bert-qa", **WIDE))
    assert is_restored(loaded)
    assert_equal_outputs(loaded, optimized(["onednn"]), example())


class Own(torch.nn.Linear):
    """A module of the caller's."""


@needs_onednn
@pytest.mark.parametrize("change", ["forward", "class", "config"])
def test_a_model_with_code_of_the_callers_is_built(change: str, saved: Path) -> None:
    model: Any = encoder("bert-qa", **WIDE)
    if change == "forward":
        forward = model.qa_outputs.forward
        model.qa_outputs.forward = lambda x: forward(x)
    elif change == "class":
        model.qa_outputs.__class__ = Own
    else:
        model.config.layer_norm_eps = 0.01
    loaded: Any = cpuaccel.load(saved, model)
    assert not is_restored(loaded)
    assert "passed by the caller" in loaded.report.not_restored


@needs_onednn
def test_the_outputs_of_a_model_that_was_passed_are_compared(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model: Any = encoder("bert-qa", **WIDE)
    forward = torch.nn.Linear.forward
    monkeypatch.setattr(torch.nn.Linear, "forward", lambda self, x: forward(self, x) + 1)
    with pytest.raises(cpuaccel.ArtifactError, match="does not reproduce"):
        cpuaccel.load(saved, model)


@needs_onednn
def test_a_folder_of_another_user_is_built(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CPUACCEL_CACHE", str(tmp_path / "another"))
    loaded: Any = cpuaccel.load(saved)
    assert not is_restored(loaded)
    assert "trust_engine_files" in loaded.report.not_restored
    assert is_restored(cpuaccel.load(saved, trust_engine_files=True))


@needs_onednn
def test_a_graph_that_was_exchanged_is_not_run(saved: Path, files: SavedFiles) -> None:
    edit_json(saved, "kept.json", variants__0__facts__program=[])
    assert not is_restored(cpuaccel.load(saved))


@needs_onednn
@pytest.mark.parametrize(
    "changes",
    [
        {"facts": {}},
        {"facts__program": []},
        {"facts__program": [{"output": {"node": 7}}]},
        {"facts__program__1": {"call": "os:system", "args": ["true"], "kwargs": {}}},
        {"facts__program__1": {"call": "aten.none.default", "args": [], "kwargs": {}}},
        {"facts__environment": {"ONEDNN_MAX_CPU_ISA": "AVX2"}},
        {"tensors": {}},
        {"record__step": "os.system"},
        {"record__output": {"kind": "os:system"}},
        {"record__output": {"kind": "tuple", "members": []}},
        {"record__form": {"tensors": [{"dtype": {"dtype": "int8"}, "sizes": ["width"]}]}},
        {"record__guards": {"numbers": [{"value": 1, "arguments": [3]}], "guards": []}},
        {"record__guards": {"numbers": [{"value": 1, "function": "exec"}], "guards": []}},
        {"call": 5},
    ],
    ids=str,
)
def test_what_does_not_fit_is_built(changes: dict[str, Any], saved: Path) -> None:
    edit_json(saved, "kept.json", **{f"variants__0__{key}": v for key, v in changes.items()})
    loaded: Any = cpuaccel.load(saved, trust_engine_files=True)
    (variant,) = loaded.report.variants
    assert "loaded_from" not in variant.outcomes[-1].evidence
    assert_equal_outputs(loaded, optimized(["onednn"]), example())


@needs_onednn
@pytest.mark.parametrize(
    "changes",
    [
        {"record": {}},
        {"record__tolerance": -1},
        {"record__fidelity": None},
        {"call": -1},
        {"tensors__0": {"weight": "none", "shape": [1]}},
        {"tensors__0": {"dtype": "int8", "shape": [2**40], "offset": 0}},
    ],
    ids=str,
)
def test_an_invalid_description_is_refused(changes: dict[str, Any], saved: Path) -> None:
    edit_json(saved, "kept.json", **{f"variants__0__{key}": v for key, v in changes.items()})
    with pytest.raises(cpuaccel.ArtifactError, match=r"kept\.json"):
        cpuaccel.load(saved, trust_engine_files=True)


@needs_onednn
def test_packed_weights_of_another_model_are_not_used(saved: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = encoder("bert-qa", **WIDE)
    step = cpuaccel.Step("onednn", measure=False)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(1.5)
    cpuaccel.optimize(model, [step], example_inputs=example()).save(tmp_path / "other")
    (saved / "kept.bin").write_bytes((tmp_path / "other" / "kept.bin").read_bytes())
    sign(saved)
    loaded: Any = cpuaccel.load(saved, trust_engine_files=True)
    assert not is_restored(loaded)
    assert "does not reproduce the stored output" in loaded.report.not_restored


@needs_onednn
def test_another_number_of_threads(saved: Path) -> None:
    torch.set_num_threads(2)
    loaded: Any = cpuaccel.load(saved)
    assert not is_restored(loaded)
    assert "threads" in loaded.report.not_restored


class Keeping(Opaque):
    """Keeps the weights in a form of its own, as a third party's backend may."""

    name = "keeping"

    def apply(self, model: torch.nn.Module, context: cpuaccel.Context) -> cpuaccel.Applied:
        kept = cpuaccel.Kept({"one": torch.ones(3)}, {"built": [True, 1.5, None]})
        return dataclasses.replace(super().apply(model, context), kept=lambda: kept)

    def restore(
        self, model: torch.nn.Module, context: cpuaccel.Context, kept: cpuaccel.Kept
    ) -> cpuaccel.Applied:
        assert kept.facts == {"built": [True, 1.5, None]}
        assert torch.equal(kept.tensors["one"], torch.ones(3))
        return super().apply(model, context)


class RestoredWrongly(Keeping):
    name = "restored_wrongly"

    def restore(
        self, model: torch.nn.Module, context: cpuaccel.Context, kept: cpuaccel.Kept
    ) -> cpuaccel.Applied:
        applied = super().restore(model, context, kept)

        def wrong(**inputs: torch.Tensor) -> object:
            return tuple(-tensor for tensor in applied.model(**inputs))  # type: ignore[attr-defined]

        return dataclasses.replace(applied, model=wrong)


class RaisingWhenRestored(Keeping):
    name = "raising_when_restored"

    def restore(
        self, model: torch.nn.Module, context: cpuaccel.Context, kept: cpuaccel.Kept
    ) -> cpuaccel.Applied:
        raise RuntimeError("no engine")


class NotRestoring(Opaque):
    """Declares what it keeps, but not how it is restored."""

    name = "not_restoring"

    def apply(self, model: torch.nn.Module, context: cpuaccel.Context) -> cpuaccel.Applied:
        return dataclasses.replace(super().apply(model, context), kept=cpuaccel.Kept)


@requires("torch>=2.0", "transformers>=4.30")
@pytest.mark.parametrize("backend", [Keeping, RestoredWrongly, RaisingWhenRestored, NotRestoring])
def test_a_third_partys_backend(
    backend: type[Fake], offer: Offer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    offer(backend)
    fast = optimized([backend.name])
    fast.save(tmp_path / "saved")
    loaded: Any = cpuaccel.load(tmp_path / "saved")
    assert is_restored(loaded) == (backend is Keeping)
    assert ("can't be used; rebuilding" in caplog.text) == (backend is not Keeping)
    assert_equal_outputs(loaded, fast, example())


class FailingToKeep(Opaque):
    name = "failing_to_keep"

    def apply(self, model: torch.nn.Module, context: cpuaccel.Context) -> cpuaccel.Applied:
        return dataclasses.replace(super().apply(model, context), kept=self.keep)

    def keep(self) -> cpuaccel.Kept:
        raise OSError("the disk is full")


class KeepingObjects(FailingToKeep):
    name = "keeping_objects"

    def keep(self) -> cpuaccel.Kept:
        return cpuaccel.Kept({}, {"fact": object()})  # type: ignore[dict-item]


class KeepingComplexNumbers(FailingToKeep):
    name = "keeping_complex_numbers"

    def keep(self) -> cpuaccel.Kept:
        return cpuaccel.Kept({"one": torch.ones(1, dtype=torch.complex64)})


@requires("torch>=2.0", "transformers>=4.30")
@pytest.mark.parametrize("backend", [FailingToKeep, KeepingObjects, KeepingComplexNumbers])
def test_a_backend_that_fails_to_keep_is_saved_without(
    backend: type[Fake], offer: Offer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    offer(backend)
    optimized([backend.name]).save(tmp_path / "saved")
    assert "keeping it raised" in caplog.text
    assert not (tmp_path / "saved" / "kept.json").exists()
    cpuaccel.load(tmp_path / "saved")
