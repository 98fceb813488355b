import logging
import os
import re
import time
from pathlib import Path

import pytest
import torch

import cpuaccel
from cpuaccel.testing import MaskedEncoder
from tests.artifact.parts import (
    SavedFiles,
    bert,
    bert_batch,
    edit_json,
    needs_torch_2,
    sign,
)
from tests.conftest import Offer
from tests.fake_backends import Faithful, Opaque, batch, encoded, encoder, padded
from tests.plugin.test_fingerprint import AMX, AVX2
from tests.required import BF16, requires


def assert_same(one: object, other: object) -> None:
    torch.testing.assert_close(encoded(one), encoded(other), rtol=0, atol=1e-5)


def test_the_callers_model_gets_the_saved_weights(
    encoder_folder: Path,
) -> None:
    model = MaskedEncoder.seeded(seed=7)
    fast = cpuaccel.load(encoder_folder, model)
    for inputs in (batch(), batch(3, 9), padded(batch())):
        assert_same(fast(**inputs), encoder()(**inputs))
    assert fast.report.applied == ("jit",)
    assert fast.report.calls == {"optimized": 3}
    assert all(
        torch.equal(t, encoder().state_dict()[name]) for name, t in model.state_dict().items()
    )


@needs_torch_2
def test_a_transformers_model_is_made_from_its_configuration(bert_folder: Path) -> None:
    fast = cpuaccel.load(bert_folder)
    original = bert()
    assert isinstance(fast, type(original))
    for inputs in (bert_batch(), bert_batch(3, 5)):
        with torch.no_grad():
            expected = original(**inputs)
        output = fast(**inputs)
        assert type(output) is type(expected)
        torch.testing.assert_close(output.start_logits, expected.start_logits)
    assert fast.report.calls == {"optimized": 2}
    assert not fast.original.training


@needs_torch_2
def test_shared_weights_buffers_and_dtypes_are_restored(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(n_layer=1, n_embd=16, n_head=2, vocab_size=60, n_positions=32)
    model = transformers.GPT2LMHeadModel(config).eval().to(torch.bfloat16)
    inputs = {"input_ids": torch.arange(6)[None], "use_cache": False}
    cpuaccel.optimize(model, ["jit"], example_inputs=inputs, strict=True).save(tmp_path)
    loaded = cpuaccel.load(tmp_path).original
    assert loaded.lm_head.weight is loaded.transformer.wte.weight
    assert {p.dtype for p in loaded.parameters()} == {torch.bfloat16}
    before, after = dict(model.named_buffers()), dict(loaded.named_buffers())
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_non_persistent_buffers_are_restored(tmp_path: Path) -> None:
    class Shifting(torch.nn.Module):
        def __init__(self, shift: float) -> None:
            super().__init__()
            self.register_buffer("shift", torch.tensor([shift]), persistent=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.shift

    cpuaccel.optimize(Shifting(3.0), ["jit"], example_inputs=torch.ones(2, 2)).save(tmp_path)
    fast = cpuaccel.load(tmp_path, Shifting(0.0))
    assert torch.equal(fast(torch.zeros(1, 2)), torch.full((1, 2), 3.0))


def test_every_call_is_restored_with_its_constants(tmp_path: Path) -> None:
    class Scaling(torch.nn.Module):
        def forward(
            self, x: torch.Tensor, factor: float = 1.0, dtype: torch.dtype | None = None
        ) -> torch.Tensor:
            return (x * factor).to(dtype or x.dtype)

    fast = cpuaccel.optimize(Scaling(), ["jit"], example_inputs={"x": torch.ones(2, 2)})
    calls: list[dict[str, object]] = [
        {"factor": 2.0},
        {"factor": 2},
        {"factor": 2.0, "dtype": torch.float64},
    ]
    for constants in calls:
        fast(x=torch.ones(2, 2), **constants)
    fast.save(tmp_path)
    loaded = cpuaccel.load(tmp_path, Scaling())
    assert len(loaded.variants) == 4
    for constants in calls:
        output = loaded(x=torch.full((3, 2), 5.0), **constants)
        expected = Scaling()(torch.full((3, 2), 5.0), **constants)
        assert torch.equal(output, expected)
        assert output.dtype == expected.dtype
    assert len(loaded.variants) == 4
    assert loaded.report.calls == {"optimized": 3}


def test_pipeline_and_settings_are_restored(tmp_path: Path, offer: Offer) -> None:
    offer(Faithful, Opaque)
    steps = [cpuaccel.Step("faithful", optional=True), "opaque"]
    fast = cpuaccel.optimize(
        encoder(), steps, example_inputs=batch(), tolerance=0.25, keep_original=False
    )
    fast.save(tmp_path)
    loaded = cpuaccel.load(tmp_path, encoder())
    assert loaded.report.applied == ("faithful", "opaque")
    fidelity = loaded.report.variants[0].fidelity
    assert fidelity is not None
    assert fidelity.tolerance == 0.25
    loaded.save(tmp_path)  # over itself
    assert_same(cpuaccel.load(tmp_path, encoder())(**batch()), encoder()(**batch()))


class WritesInput(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.linear(x.add_(1))
        return output


def test_a_model_that_writes_to_its_input_reproduces_the_stored_output(tmp_path: Path) -> None:
    model = WritesInput().eval()
    folder = tmp_path / "saved"
    cpuaccel.optimize(model, ["jit"], example_inputs=torch.ones(2, 4)).save(folder)
    fast = cpuaccel.load(folder, WritesInput())
    ours, theirs = torch.ones(3, 4), torch.ones(3, 4)
    with torch.no_grad():
        torch.testing.assert_close(fast(ours), model(theirs))
    assert torch.equal(ours, theirs)


def test_a_custom_module_must_be_passed(encoder_folder: Path) -> None:
    with pytest.raises(
        cpuaccel.ArtifactError,
        match=r"no code for MaskedEncoder \(not a Transformers model\)\. Make the model, and pass "
        r"it: cpuaccel\.load\('.*', model\)",
    ):
        cpuaccel.load(encoder_folder)


def test_another_model_is_refused_and_unchanged(encoder_folder: Path) -> None:
    wider = MaskedEncoder(width=8)
    with pytest.raises(
        cpuaccel.ArtifactError, match=r"have embedding\.weight of shape \[50, 16\], not \[50, 8\]"
    ):
        cpuaccel.load(encoder_folder, wider)
    with pytest.raises(
        cpuaccel.ArtifactError, match=r"do not fit ReLU: they have the unexpected .* and \d+ more"
    ):
        cpuaccel.load(encoder_folder, torch.nn.ReLU())

    class Other(MaskedEncoder):
        def forward(
            self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None
        ) -> object:
            states, pooled = super().forward(input_ids, attention_mask)
            return type(super().forward(input_ids))(states, pooled * 1.5)

    other = Other()
    before = {name: (t.data_ptr(), t.clone()) for name, t in other.state_dict().items()}
    with pytest.raises(
        cpuaccel.ArtifactError,
        match=r"the model does not reproduce the stored output: 1 differs by .* Pass the model",
    ):
        cpuaccel.load(encoder_folder, other)
    for name, tensor in other.state_dict().items():
        assert tensor.data_ptr() == before[name][0]
        assert torch.equal(tensor, before[name][1])


def test_a_model_that_shares_separate_weights_is_refused(tmp_path: Path) -> None:
    class Pair(torch.nn.Module):
        def __init__(self, tied: bool) -> None:
            super().__init__()
            self.one, self.two = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
            if tied:
                self.two = self.one

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.two(self.one(x))  # type: ignore[no-any-return]

    apart, tied = Pair(tied=False), Pair(tied=True)
    cpuaccel.optimize(apart, ["jit"], example_inputs=torch.ones(2, 2)).save(tmp_path / "apart")
    cpuaccel.optimize(tied, ["jit"], example_inputs=torch.ones(2, 2)).save(tmp_path / "tied")
    with pytest.raises(
        cpuaccel.ArtifactError, match=r"have separate tensors for two\.weight and one\.weight"
    ):
        cpuaccel.load(tmp_path / "apart", Pair(tied=True))
    loaded = cpuaccel.load(tmp_path / "tied", Pair(tied=False))
    torch.testing.assert_close(loaded(torch.ones(3, 2)), tied(torch.ones(3, 2)).detach())


@pytest.mark.parametrize("flags", [frozenset({"sse9"}), AMX, AVX2])
def test_on_another_host_it_rebuilds_or_refuses(
    encoder_folder: Path, caplog: pytest.LogCaptureFixture, flags: frozenset[str]
) -> None:
    edit_json(
        encoder_folder,
        "artifact.json",
        made__packages__torch="1.0",
        made__isa=" ".join(sorted(flags)),
    )
    with pytest.raises(cpuaccel.ArtifactError) as refused:
        cpuaccel.load(encoder_folder, encoder(), on_change="refuse")
    here = cpuaccel.host().packages["torch"]
    assert f"packages.torch was 1.0, is {here}; the processor " in str(refused.value)
    assert "flags. Pass on_change='rebuild'" in str(refused.value)
    with caplog.at_level(logging.INFO, "cpuaccel"):
        fast = cpuaccel.load(encoder_folder, encoder(), trust_engine_files=True)
    assert f"packages.torch was 1.0, is {here}" in caplog.text
    assert "loaded_from" not in fast.report.outcomes[0].evidence
    assert_same(fast(**batch()), encoder()(**batch()))


def test_a_long_list_of_changes_says_that_it_is_cut(encoder_folder: Path) -> None:
    packages = {f"package-{number}": "1.0" for number in range(100)}
    edit_json(encoder_folder, "artifact.json", made__packages=packages)
    with pytest.raises(cpuaccel.ArtifactError) as refused:
        cpuaccel.load(encoder_folder, encoder(), on_change="refuse")
    assert re.search(r"\.\.\. \(\d+ more characters\)\. Pass on_change", str(refused.value))
    assert len(str(refused.value)) < 1500


def test_on_the_same_host_nothing_is_refused(encoder_folder: Path) -> None:
    cpuaccel.load(encoder_folder, encoder(), on_change="refuse")
    with pytest.raises(cpuaccel.ArtifactError, match=r"must be 'rebuild' or 'refuse', got 'ask'"):
        cpuaccel.load(encoder_folder, encoder(), on_change="ask")  # type: ignore[arg-type]
    with pytest.raises(cpuaccel.ArtifactError, match=r"must be a torch\.nn\.Module, got str"):
        cpuaccel.load(encoder_folder, "bert")  # type: ignore[arg-type]


def test_an_unknown_backend(encoder_folder: Path) -> None:
    (encoder_folder / "pipeline.toml").write_text('version = 1\n[[steps]]\nbackend = "jitt"\n')
    sign(encoder_folder)
    with pytest.raises(cpuaccel.ArtifactError, match=r"unknown backend 'jitt'"):
        cpuaccel.load(encoder_folder, encoder())


def test_scripts_run_only_if_trusted(encoder_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[object] = []
    jit_load = torch.jit.load
    monkeypatch.setattr(torch.jit, "load", lambda f: loads.append(f) or jit_load(f))
    cpuaccel.load(encoder_folder, encoder())
    assert loads == []
    fast = cpuaccel.load(encoder_folder, encoder(), trust_engine_files=True)
    assert len(loads) == 1
    assert fast.report.outcomes[0].evidence["loaded_from"] == "model.pt"
    for inputs in (batch(), batch(3, 9), padded(batch())):
        assert_same(fast(**inputs), encoder()(**inputs))
    assert fast.report.calls == {"optimized": 3}


@requires(BF16)
def test_a_trusted_script_answers_in_its_precision(tmp_path: Path) -> None:
    fast = cpuaccel.optimize(
        encoder(), ["jit"], example_inputs=batch(), dtype="bfloat16", strict=True
    )
    fast.save(tmp_path)
    loaded = cpuaccel.load(tmp_path, encoder(), trust_engine_files=True)
    assert loaded.report.outcomes[-1].evidence["loaded_from"] == "model.pt"
    one, other = encoded(loaded(**batch())), encoded(fast(**batch()))
    assert one.states.dtype == torch.float32
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize("change", ["not a script", "of another model"])
def test_a_broken_trusted_script_is_rebuilt(
    encoder_folder: Path, change: str, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    if change == "not a script":
        (encoder_folder / "model.pt").write_bytes(b"PK")
    else:
        other = MaskedEncoder.seeded(seed=3)
        cpuaccel.optimize(other, ["jit"], example_inputs=batch()).save(tmp_path / "other")
        (encoder_folder / "model.pt").write_bytes((tmp_path / "other" / "model.pt").read_bytes())
    sign(encoder_folder)
    with caplog.at_level(logging.WARNING, "cpuaccel"):
        fast = cpuaccel.load(encoder_folder, encoder(), trust_engine_files=True)
    assert "rebuilding" in caplog.text
    assert "loaded_from" not in fast.report.outcomes[0].evidence
    assert_same(fast(**batch()), encoder()(**batch()))


def test_an_unavailable_step_raises_if_saved_with_strict(tmp_path: Path, offer: Offer) -> None:
    offer(Faithful)
    cpuaccel.optimize(encoder(), ["faithful"], example_inputs=batch(), strict=True).save(tmp_path)
    cpuaccel.load(tmp_path, encoder())
    Faithful.requires = (("an-engine-of-tests>=2",),)
    try:
        with pytest.raises(cpuaccel.ArtifactError, match=r"an-engine-of-tests is not installed"):
            cpuaccel.load(tmp_path, encoder())
    finally:
        del Faithful.requires


def test_the_callers_autocast_has_no_effect(encoder_folder: Path) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        fast = cpuaccel.load(encoder_folder, encoder())
    assert_same(fast(**batch()), encoder()(**batch()))
    assert torch.is_grad_enabled()


@needs_torch_2
def test_a_subclass_of_a_transformers_model_must_be_passed(
    tmp_path: Path, saved_bert: SavedFiles
) -> None:
    parent = type(bert())

    class BertForQuestionAnswering(parent):  # type: ignore[misc,valid-type]
        """A different class of the same name."""

    model = BertForQuestionAnswering(bert().config).eval()
    cpuaccel.optimize(model, ["jit"], example_inputs=bert_batch()).save(tmp_path)
    with pytest.raises(cpuaccel.ArtifactError, match="its class is not part of Transformers"):
        cpuaccel.load(tmp_path)
    cpuaccel.load(tmp_path, BertForQuestionAnswering(bert().config))


LARGE = 2**24


def test_a_large_file_is_hashed_once_and_again_when_it_is_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CPUACCEL_CACHE", str(tmp_path / "cache"))
    model = torch.nn.Linear(2048, 2048)
    inputs = {"input": torch.ones(2, 2048)}
    folder = tmp_path / "saved"
    cpuaccel.optimize(model, ["jit"], example_inputs=inputs).save(folder)
    weights = folder / "weights.safetensors"
    assert weights.stat().st_size > LARGE
    time.sleep(0.2)
    cpuaccel.load(folder, torch.nn.Linear(2048, 2048))
    assert len([*(tmp_path / "cache" / "verified").iterdir()]) >= 1
    loaded = cpuaccel.load(folder, torch.nn.Linear(2048, 2048))
    assert torch.equal(loaded.original.weight, model.weight)
    before = weights.stat()
    with weights.open("r+b") as file:
        file.seek(before.st_size // 2)
        file.write(b"\1")
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(cpuaccel.ArtifactError, match=r"weights\.safetensors was changed"):
        cpuaccel.load(folder, torch.nn.Linear(2048, 2048))


def test_what_is_written_to_mapped_weights_stays_in_the_process(
    bert_folder: Path,
) -> None:
    before = (bert_folder / "weights.safetensors").read_bytes()
    loaded = cpuaccel.load(bert_folder, bert())
    with torch.no_grad():
        for parameter in loaded.original.parameters():
            parameter.zero_()
    assert (bert_folder / "weights.safetensors").read_bytes() == before
