"""Only real tokens are computed after bettertransformer."""

import pytest
import torch

import cpuaccel
from cpuaccel.testing.outputs import assert_same_output
from cpuaccel_plugins.common.padding_markers import markers
from cpuaccel_plugins.onednn.attention.packed import pack, read_layout, read_patterns, unpack
from cpuaccel_plugins.onednn.linear.nodes import FUSED_ADD
from tests.models import batch, encoder, right, unpadded
from tests.plugins.engines import UNSEEN
from tests.plugins.onednn.graphs import assert_same, fuse
from tests.required import requires

NATIVE = ("transformers>=5",)
STEPS = ["bettertransformer", cpuaccel.Step("onednn", measure=False)]

ARCHITECTURES = [
    "bert-text",
    "electra-token",
    "albert",
    "distilbert-token",
    "modernbert-token",
    "wav2vec2",
]


@requires(*NATIVE)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_outputs_are_the_originals_and_padding_is_not_computed(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, example = encoder(name), batch(name, 4, 24, right)
    fast = cpuaccel.optimize(model, STEPS, example_inputs=example, strict=True)
    assert "padding_computed" not in fast.report.outcomes[-1].evidence
    rows = rows_of_fused_additions(fast, monkeypatch)
    for size, length, pad in [*UNSEEN, (7, 40, unpadded)]:
        rows.clear()
        inputs = batch(name, size, length, pad)
        with torch.no_grad():
            expected = model(**inputs)
        output = fast(**inputs)
        if name == "wav2vec2":  # its mask counts samples, not frames
            frames = model._get_feature_vector_attention_mask(  # type: ignore[operator]
                output.logits.shape[1], inputs["attention_mask"]
            )
            inputs = {**inputs, "attention_mask": frames.long()}
        assert_same_output(output, expected, inputs)
        # A sequence has two fused additions in each of two layers, over its packed tokens.
        packed = inputs["attention_mask"].clone()
        packed[:, 0] = 1
        assert rows == [int(packed.sum())] * 4
    assert set(fast.report.calls) == {"optimized"}, fast.report


def rows_of_fused_additions(
    fast: cpuaccel.OptimizedModel, monkeypatch: pytest.MonkeyPatch
) -> list[int]:
    """A list that gets the number of rows of every linear with an addition, as they are called."""
    run = fast.variants[0].model._run  # type: ignore[attr-defined]
    rows: list[int] = []
    adds = FUSED_ADD._op

    def recording(x: torch.Tensor, *rest: object) -> torch.Tensor:
        rows.append(x[..., 0].numel())
        return adds(x, *rest)  # type: ignore[no-any-return]

    (name,) = [name for name, bound in run.__globals__.items() if bound is adds]
    monkeypatch.setitem(run.__globals__, name, recording)
    return rows


def test_unpacking_repeats_the_token_before_padding() -> None:
    real = torch.tensor([[1, 1, 1, 0], [0, 1, 1, 0], [1, 1, 1, 1]]).bool()
    layout = read_layout(real)
    assert layout.tokens == 3 + 3 + 4  # the first token of a sequence is always packed
    assert [(s.start, s.first, s.end) for s in layout.sequences] == [
        (0, 0, 3),
        (3, 4, 6),
        (6, 6, 10),
    ]
    hidden = torch.randn(3, 4, 5)
    back = unpack(pack(hidden, layout), layout)
    expected = hidden.clone()  # padding repeats the token before it
    expected[0, 3], expected[1, 3] = hidden[0, 2], hidden[1, 2]
    assert torch.equal(back, expected)
    assert torch.equal(pack(hidden[:1], layout), pack(hidden[:1].expand(3, 4, 5), layout))


def test_a_batch_without_padding_is_not_copied() -> None:
    layout = read_layout(torch.ones(2, 3, dtype=torch.bool))
    hidden = torch.randn(2, 3, 5)
    packed = pack(hidden, layout)
    assert packed.data_ptr() == hidden.data_ptr()
    assert torch.equal(unpack(packed, layout), hidden)


def test_patterns_are_those_of_packed_tokens() -> None:
    real = torch.tensor([[1, 1, 0], [0, 1, 1]]).bool()
    window = (torch.arange(3)[:, None] - torch.arange(3)).abs() <= 1
    mask = window[None, None] & real[:, None, None]
    first, second = read_patterns(mask, read_layout(real), torch.float32)
    assert torch.equal(first == 0, torch.ones(1, 2, 2, dtype=torch.bool))
    assert (second == 0).tolist() == [[[True, False], [True, True], [True, True]]]


class Marked(torch.nn.Module):
    """An operator between the markers that does not treat tokens alone."""

    def __init__(self, between: str) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(4, 4)
        self.between = between

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        pack_marker, unpack_marker = markers()
        real = mask.bool()
        hidden = self.linear(pack_marker(x, real))
        if self.between == "over tokens":
            hidden = hidden.cumsum(1)
        elif self.between == "of tokens":
            hidden = hidden + x.mean(1, keepdim=True)
        elif self.between == "from outside":
            hidden = hidden + x
        elif self.between == "moved":
            hidden = hidden.transpose(1, 2).reshape(x.shape[0], x.shape[1], 4)
        elif self.between == "mean":
            hidden = hidden - hidden.mean(1, keepdim=True)
        elif self.between == "cut":
            hidden = torch.cat([hidden[:, 1:], hidden[:, :1]], 1)
        return unpack_marker(hidden, real)


@pytest.mark.parametrize(
    ("between", "reason"),
    [
        ("over tokens", "cumsum.default is not known to treat tokens alone"),
        ("from outside", "add.Tensor reads a tensor of tokens from outside"),
        ("of tokens", "add.Tensor reads a tensor of tokens from outside"),
        ("moved", "reshape.default moves tokens"),
        ("mean", "mean.dim mixes tokens"),
        ("cut", "slice.Tensor mixes tokens"),
    ],
)
def test_padding_is_computed_where_tokens_are_mixed_and_the_reason_is_reported(
    between: str, reason: str
) -> None:
    model = Marked(between).eval()
    inputs = torch.randn(3, 6, 4), torch.ones(3, 6, dtype=torch.long)
    applied = fuse(model, *inputs)
    assert applied.evidence["padding_computed"] == reason
    assert_same(applied, model, *inputs)


def test_markers_return_their_input() -> None:
    hidden, real = torch.randn(2, 3, 4), torch.ones(2, 3, dtype=torch.bool)
    for marker in markers():
        assert torch.equal(marker(hidden, real), hidden)
