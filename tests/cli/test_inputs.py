import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cpuaccel.cli.models.inputs import make_inputs, modality, row_lengths
from cpuaccel.cli.models.load import load_model
from cpuaccel.errors import ModelError


@given(st.integers(2, 64), st.integers(1, 512), st.floats(0.0, 0.99))
def test_the_share_of_padding(batch_size: int, longest: int, padding: float) -> None:
    lengths = row_lengths(batch_size, longest, padding)
    assert len(lengths) == batch_size
    assert lengths[0] == longest
    assert all(1 <= length <= longest for length in lengths)
    wanted = batch_size * longest * (1 - padding)
    least = longest + batch_size - 1  # a full row, and one token in each other row
    assert sum(lengths) == pytest.approx(max(wanted, least), abs=batch_size / 2 + 1)


def test_lengths_vary_evenly() -> None:
    assert row_lengths(5, 100, 0.4) == [100, 99, 66, 34, 1]


def test_a_single_row_has_no_padding() -> None:
    assert row_lengths(1, 32, 0.5) == [32]


def test_text() -> None:
    model = load_model("config:roberta-tiny")
    inputs = make_inputs(model, 8, 32, padding=0.5)
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    assert isinstance(ids, torch.Tensor)
    assert isinstance(mask, torch.Tensor)
    pad = model.config.pad_token_id  # type: ignore[union-attr]
    assert list(inputs) == ["input_ids", "attention_mask", "token_type_ids"]
    assert ids.shape == (8, 32)
    assert torch.equal(ids.ne(pad), mask.bool())  # type: ignore[arg-type]
    assert mask.float().mean().item() == pytest.approx(0.5, abs=0.02)
    assert mask[0].all()
    assert torch.equal(mask, mask.sort(dim=1, descending=True).values), "padding is on the right"
    assert int(ids.max()) < 512


def test_token_types_only_where_forward_takes_them() -> None:
    assert "token_type_ids" not in make_inputs(load_model("config:distilbert-tiny"), 1, 8)


def test_images_ignore_the_length() -> None:
    inputs = make_inputs(load_model("config:vit-tiny"), 2, 999)
    assert {name: list(t.shape) for name, t in inputs.items()} == {"pixel_values": [2, 3, 32, 32]}  # type: ignore[attr-defined]


def test_the_unit_of_audio_is_320_samples() -> None:
    model = load_model("config:wav2vec2-tiny")
    assert list(make_inputs(model, 2, 20)) == ["input_values"]
    padded = make_inputs(model, 2, 20, padding=0.25)
    values, mask = padded["input_values"], padded["attention_mask"]
    assert isinstance(values, torch.Tensor)
    assert isinstance(mask, torch.Tensor)
    assert values.shape == (2, 20 * 320)
    assert mask.sum(1).tolist() == [20 * 320, 10 * 320]
    assert not values[mask == 0].any()


def test_inputs_are_reproducible_and_do_not_change_the_random_state() -> None:
    model = load_model("config:bert-tiny")
    before = torch.random.get_rng_state()
    first, second = (make_inputs(model, 2, 8)["input_ids"] for _ in range(2))
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(first, second)  # type: ignore[arg-type]


def test_a_model_with_another_kind_of_input() -> None:
    with pytest.raises(ModelError, match="the main input of Linear must be one of"):
        modality(torch.nn.Linear(2, 2))
