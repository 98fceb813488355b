"""Finding rows of a batch that are equal, as those of the beams of one sequence are."""

import torch


def equal_rows(*parts: torch.Tensor) -> torch.Tensor:
    """Number rows so that a row that is equal to the one before it has its number.

    Args:
        parts: tensors with the same number of rows, which are compared in all of them.

    Returns:
        The numbers, from 0 on, int64, shape (rows,).
    """
    numbers: list[int] = []
    for row in range(len(parts[0])):
        same = row > 0 and all(torch.equal(part[row], part[row - 1]) for part in parts)
        numbers.append(numbers[-1] + (not same) if row else 0)
    return torch.tensor(numbers, dtype=torch.int64)


def first_rows(numbers: torch.Tensor) -> torch.Tensor:
    """Find the first row of each number.

    Args:
        numbers: of the rows, int64, shape (rows,).

    Returns:
        Places of rows, in the order of the numbers that are there, int64.
    """
    first: dict[int, int] = {}
    for row, number in enumerate(numbers.tolist()):
        first.setdefault(number, row)
    return torch.tensor([first[number] for number in sorted(first)], dtype=torch.int64)
