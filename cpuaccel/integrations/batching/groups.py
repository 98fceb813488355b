"""Which rows are computed together: rows of similar length, up to a number of tokens.

The rules are for models that remove padding, which take as long as a batch has real tokens. Rows of
similar length cost the others little padding.
"""

from collections.abc import Sequence

TOKENS = 4096
"""Tokens of a batch: a choice that was not measured."""

MOST_PADDING = 4
"""Largest ratio of a batch's padded size to the budget: padding takes memory even where it is not
computed."""


def group_by_tokens(lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """Cut rows into batches of similar length, the longest rows first.

    Args:
        lengths: tokens of each row.
        tokens: most tokens of a batch. A longer row is a batch by itself.

    Returns:
        Positions in ``lengths``, each of them once.
    """
    groups: list[list[int]] = []
    total = 0
    for index in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        total += lengths[index]
        if not groups or not _fits(total, len(groups[-1]) + 1, lengths[groups[-1][0]], tokens):
            groups.append([])
            total = lengths[index]
        groups[-1].append(index)
    return groups


def first_batch(lengths: Sequence[int], tokens: int) -> list[int]:
    """Choose the next batch among waiting rows: the oldest, and those closest to it in length.

    Since each batch has the oldest row, no row waits for more batches than rows were before it.

    Args:
        lengths: tokens of each row, in order of arrival; at least one row.
        tokens: most tokens of a batch. A longer row is a batch by itself.

    Returns:
        Positions in ``lengths``.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    begin = order.index(0)
    end = begin + 1
    total = lengths[0]
    while begin > 0 or end < len(order):
        shorter = lengths[order[begin - 1]] if begin > 0 else None
        longer = lengths[order[end]] if end < len(order) else None
        longest = lengths[order[end - 1]]
        size = end - begin + 1
        fits_shorter = shorter is not None and _fits(total + shorter, size, longest, tokens)
        fits_longer = longer is not None and _fits(total + longer, size, longer, tokens)
        if shorter is not None and fits_shorter:
            if longer is None or not fits_longer or lengths[0] - shorter <= longer - lengths[0]:
                begin -= 1
                total += shorter
                continue
        elif not fits_longer:
            break
        assert longer is not None
        end += 1
        total += longer
    return order[begin:end]


def _fits(total: int, rows: int, longest: int, tokens: int) -> bool:
    return total <= tokens and rows * longest <= MOST_PADDING * tokens
