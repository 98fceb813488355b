from pathlib import Path

import cpuaccel
from cpuaccel.cli.requirements import requirements_table
from tests.cli.backends import Absent, Faithful
from tests.cli.conftest import Run

README = Path(__file__).parents[2] / "README.md"


def test_the_readme_says_what_the_plugins_declare() -> None:
    own = {
        name: backend
        for name, backend in cpuaccel.backends().items()
        if backend.__module__.startswith("cpuaccel_plugins.")
    }
    _, _, rest = README.read_text(encoding="utf-8").partition("<!-- requirements -->\n")
    table, end, _ = rest.partition("\n<!-- /requirements -->")
    assert end, "README.md has lost its marks around the table"
    assert table == requirements_table(own), "replace it by what `plugins --markdown` prints"


def test_a_row_for_each_set_of_requirements() -> None:
    class Choosing(Absent):
        requires = (("torch>=2.4,<3", "one>=1,<2", "two"), ("three==1.*",))

    assert requirements_table({"faithful": Faithful, "choosing": Choosing}).splitlines() == [
        "| backend | torch | and |",
        "|---|---|---|",
        "| `choosing` | >=2.4, <3 | one >=1, <2 and two |",
        "| or | any | three ==1.* |",
        "| `faithful` | any | nothing else |",
    ]


def test_the_command_prints_the_same(run: Run) -> None:
    ran = run("plugins", "--markdown")
    assert ran.code == 0
    assert ran.out == requirements_table(cpuaccel.backends()) + "\n"


def test_json_and_markdown_exclude_each_other(run: Run) -> None:
    ran = run("plugins", "--markdown", "--json")
    assert ran.code == 2
    assert "Pass one of the two" in ran.err
