"""CoNLL's column format: a word and its tag a line, a blank line between sentences."""

from pathlib import Path

from common.exits import ExampleError
from common.tables import Row, read_text

DOCUMENT = "-DOCSTART-"
"""What begins the line between two documents."""


def read_conll(path: Path, option: str) -> list[Row]:
    """Read sentences.

    Args:
        path: the file; the first column is the word, the last one its tag, what is between is left
            aside. With a single column there are no tags.
        option: the option that named it, for errors.

    Returns:
        Rows of tokens and, where there are any, ner_tags.

    Raises:
        UsageError: there is no such file.
        ExampleError: it can't be read, or a line has other columns than the first one.
    """
    sentences: list[list[list[str]]] = [[]]
    count = None
    # Only these separate: a word may have other blanks and ends of lines in it.
    for number, line in enumerate(read_text(path, option).split("\n"), 1):
        separator = "\t" if "\t" in line else " "
        columns = [column for column in line.strip("\r\t ").split(separator) if column]
        if not columns or columns[0] == DOCUMENT:
            sentences.append([])
            continue
        count = count or len(columns)
        if len(columns) != count:
            raise ExampleError(
                f"{option} {path} was asked for, but line {number} in it has {len(columns)} "
                f"columns where the first one has {count}. Mend it, or name the file .csv or "
                ".json if that is what it is"
            )
        sentences[-1].append(columns)
    rows = [_row(sentence) for sentence in sentences if sentence]
    if not rows:
        raise ExampleError(f"{option} {path} was asked for, but there are no sentences in it")
    return rows


def to_conll(tokens: list[list[str]], tags: list[list[str]]) -> str:
    """Sentences as text that ``read_conll`` reads."""
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
