"""The reasons that the page on troubleshooting explains are those that the code gives."""

import re

from tests.required import ROOT


def _source() -> str:
    folders = (ROOT / "cpuaccel", ROOT / "plugins")
    files = (path for folder in folders for path in folder.rglob("*.py"))
    text = "\n".join(path.read_text(encoding="utf-8") for path in files)
    return re.sub(r'"\s+f?"', "", text)  # literals over several lines


def test_the_reasons_are_those_of_the_code() -> None:
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    table = page.partition("| the report says |")[2].partition("\n\n")[0]
    quoted = [row.split("|")[1].split("`")[1::2] for row in table.splitlines()[2:]]
    assert len(quoted) >= 6
    source = _source()
    for reasons in quoted:
        for words in (part.strip(" ,") for reason in reasons for part in reason.split("...")):
            assert words in source, words
