"""The CoNLL format: a line for each word and its tag, a blank line between sentences."""

from pathlib import Path

from common.exits import ExampleError
from common.tables import Row, read_text

DOCUMENT = "-DOCSTART-"
"""Start of the line between two documents."""


def read_conll(path: Path, option: str) -> list[Row]:
    """Read sentences.

    Args:
        path: the file. The first column has the words and the last one the tags; columns between
            are ignored. A file with one column has no tags.
        option: the option that names the file, for errors.

    Returns:
        Rows of tokens and, if there are tags, ner_tags.

    Raises:
        UsageError: the file does not exist.
        ExampleError: it can't be read, or its lines differ in their number of columns.
    """
    sentences: list[list[list[str]]] = [[]]
    count = None
    # Split at these only: words may contain other white space.
    for number, line in enumerate(read_text(path, option).split("\n"), 1):
        separator = "\t" if "\t" in line else " "
        columns = [column for column in line.strip("\r\t ").split(separator) if column]
        if not columns or columns[0] == DOCUMENT:
            sentences.append([])
            continue
        count = count or len(columns)
        if len(columns) != count:
            raise ExampleError(
                f"{option} {path}: line {number} has {len(columns)} columns, but the first "
                f"line has {count}. Correct it, or rename the file to .csv or .json if it is one"
            )
        sentences[-1].append(columns)
    rows = [_row(sentence) for sentence in sentences if sentence]
    if not rows:
        raise ExampleError(f"{option} {path} has no sentences")
    return rows


def to_conll(tokens: list[list[str]], tags: list[list[str]]) -> str:
    """Format sentences as ``read_conll`` reads them."""
    sentences = (
        "".join(f"{token}\t{tag}\n" for token, tag in zip(*sentence))
        for sentence in zip(tokens, tags)
    )
    return "\n".join(sentences)


def _row(sentence: list[list[str]]) -> Row:
    row: Row = {"tokens": [columns[0] for columns in sentence]}
    if len(sentence[0]) > 1:
        row["ner_tags"] = [columns[-1] for columns in sentence]
    return row
