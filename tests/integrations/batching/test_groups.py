"""Batches by tokens: each row once, within the budget, rows of similar length together."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpuaccel.integrations.batching.groups import MOST_PADDING, first_batch, group_by_tokens

LENGTHS = st.lists(st.integers(1, 600), min_size=1, max_size=60)
BUDGETS = st.integers(1, 2000)


def assert_fits(batch: list[int], lengths: list[int], tokens: int) -> None:
    rows = [lengths[index] for index in batch]
    if len(rows) > 1:
        assert sum(rows) <= tokens
        assert len(rows) * max(rows) <= MOST_PADDING * tokens


@given(LENGTHS, BUDGETS)
def test_groups_have_each_row_once_and_fit(lengths: list[int], tokens: int) -> None:
    groups = group_by_tokens(lengths, tokens)
    assert sorted(index for group in groups for index in group) == list(range(len(lengths)))
    for group in groups:
        assert_fits(group, lengths, tokens)
    ordered = [lengths[index] for group in groups for index in group]
    assert ordered == sorted(lengths, reverse=True)


@given(LENGTHS, BUDGETS)
def test_a_batch_has_the_oldest_row_and_a_window_of_lengths(
    lengths: list[int], tokens: int
) -> None:
    batch = first_batch(lengths, tokens)
    assert 0 in batch
    assert len(set(batch)) == len(batch)
    assert_fits(batch, lengths, tokens)
    inside = [lengths[index] for index in batch]
    rest = [length for index, length in enumerate(lengths) if index not in batch]
    assert not [length for length in rest if min(inside) < length < max(inside)]


@given(LENGTHS, BUDGETS)
def test_no_row_could_be_added(lengths: list[int], tokens: int) -> None:
    batch = first_batch(lengths, tokens)
    inside = sorted(lengths[index] for index in batch)
    rest = [length for index, length in enumerate(lengths) if index not in batch]
    shorter = [length for length in rest if length <= inside[0]]
    longer = [length for length in rest if length >= inside[-1]]
    for length in ([max(shorter)] if shorter else []) + ([min(longer)] if longer else []):
        rows = [*inside, length]
        padded = len(rows) * max(rows)
        assert sum(rows) > tokens or padded > MOST_PADDING * tokens


def test_rows_nearest_in_length_come_first() -> None:
    assert sorted(first_batch([10, 100, 11, 9, 50], 30)) == [0, 2, 3]


def test_all_rows_are_one_batch_where_they_fit() -> None:
    assert sorted(first_batch([10, 100, 11, 9, 50], 1000)) == [0, 1, 2, 3, 4]


def test_padding_is_bounded() -> None:
    lengths = [1000, *[1] * 500]
    assert len(group_by_tokens(lengths, 1500)) == 2
    assert group_by_tokens(lengths, 1500)[0] == [0, *range(1, 6)]


def test_nothing_to_group() -> None:
    assert group_by_tokens([], 10) == []


@pytest.mark.parametrize("lengths", [[3, 2, 1], [5000], [5000, 1]])
def test_a_row_over_the_budget_is_a_batch(lengths: list[int]) -> None:
    assert group_by_tokens(lengths, 3)[0] == [0]
    assert first_batch(lengths, 3) == [0]
