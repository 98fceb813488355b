"""Local files of rows, right and wrong."""

from pathlib import Path

import pytest

pytest.importorskip("datasets", reason="the examples need the library datasets")

from common.exits import ExampleError, UsageError
from common.tables import read_rows

ROWS = [{"id": "1", "text": "a"}, {"id": "2", "text": "b"}]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("list.json", '[{"id": "1", "text": "a"}, {"id": "2", "text": "b"}]'),
        ("data.json", '{"data": [{"id": "1", "text": "a"}, {"id": "2", "text": "b"}]}'),
        ("lines.jsonl", '{"id": "1", "text": "a"}\n\n{"id": "2", "text": "b"}\n'),
        ("lines.json", '{"id": "1", "text": "a"}\n{"id": "2", "text": "b"}\n'),
        ("with_bom.json", '\ufeff[{"id": "1", "text": "a"}, {"id": "2", "text": "b"}]'),
    ],
)
def test_rows_are_read(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert read_rows(tmp_path / name, "--file") == ROWS


def test_csv_keeps_words_that_pandas_takes_for_missing(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('text,label\nNA,1\n"a, b",0\nNone,1\n')
    assert read_rows(tmp_path / "a.csv", "--file") == [
        {"text": "NA", "label": 1},
        {"text": "a, b", "label": 0},
        {"text": "None", "label": 1},
    ]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.json", b"", "it is empty"),
        ("a.json", b'{"data": []}', "there are no rows in it"),
        ("a.json", b'[{"id": 1},\n {"id": }]', "is not JSON: expecting value in line 2, column 9"),
        ("a.jsonl", b'{"id": 1}\n{"id"}\n', "is not JSON: expecting ':' delimiter in line 2"),
        ("a.json", b"[1]", "row 1 in it is a int"),
        ("a.json", b"\xff\xfe", "can't be read as UTF-8 text"),
        ("a.csv", b"a,b\n", "there are no rows in it"),
        ("a.csv", b"a,b\n1,2\n1,2,3\n", "is not CSV"),
    ],
)
def test_what_is_wrong_with_a_file_is_told(
    tmp_path: Path, name: str, content: bytes, told: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ExampleError) as caught:
        read_rows(tmp_path / name, "--file")
    assert str(caught.value).startswith(f"--file {tmp_path / name} was asked for, but ")
    assert told in str(caught.value)


def test_a_file_that_is_not_there_is_a_mistake_in_what_was_asked(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no such file"):
        read_rows(tmp_path / "a.json", "--file")
