"""Valid and invalid local files of rows."""

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


def test_csv_keeps_words_that_pandas_reads_as_missing(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('text,label\nNA,1\n"a, b",0\nNone,1\n')
    assert read_rows(tmp_path / "a.csv", "--file") == [
        {"text": "NA", "label": 1},
        {"text": "a, b", "label": 0},
        {"text": "None", "label": 1},
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", b"", " is empty"),
        ("a.json", b'{"data": []}', " has no rows"),
        ("a.json", b'[{"id": 1},\n {"id": }]', "invalid JSON: expecting value in line 2, column 9"),
        ("a.jsonl", b'{"id": 1}\n{"id"}\n', "invalid JSON: expecting ':' delimiter in line 2"),
        ("a.json", b"[1]", "row 1 must be an object with a field for each column, got a int"),
        ("a.json", b"\xff\xfe", "can't be read as UTF-8 text"),
        ("a.csv", b"a,b\n", " has no rows"),
        ("a.csv", b"a,b\n1,2\n1,2,3\n", "invalid CSV"),
    ],
)
def test_invalid_files(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ExampleError) as caught:
        read_rows(tmp_path / name, "--file")
    assert str(caught.value).startswith(f"--file {tmp_path / name}")
    assert message in str(caught.value)


def test_a_missing_file_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        read_rows(tmp_path / "a.json", "--file")
