"""The pages: their links and paths exist, and CONTRIBUTING.md names every folder."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")],
    key=lambda page: page.relative_to(ROOT),
)
CODE = ("cpuaccel", "plugins/cpuaccel_plugins", "tests", "examples", "benchmarks")

LINK = re.compile(r"\]\(([^)\s]+)\)")
PATH = re.compile(
    r"(?:cpuaccel|plugins|tests|examples|benchmarks|docs|requirements|scripts)/[\w./-]*\w/?"
)


def _anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as code hosts make them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        if link.startswith(("http://", "https://", "mailto:")):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), link
        if anchor:
            assert anchor in _anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_paths_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for code in re.findall(r"`([^`\n]+)`", text):
        if PATH.fullmatch(code.partition("::")[0]):
            path = code.partition("::")[0]
            assert (ROOT / path).exists(), path


def test_contributing_names_every_folder() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    folders = {
        file.parent.relative_to(ROOT) for root in CODE for file in (ROOT / root).rglob("*.py")
    }
    assert len(folders) > 40
    assert [f"{folder}/" for folder in sorted(folders) if f"`{folder}/`" not in text] == []


def test_contributing_names_every_module_at_the_top() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    modules = sorted(path.name for path in (ROOT / "cpuaccel").glob("*.py"))
    assert [name for name in modules if f"`cpuaccel/{name}`" not in text] == []


def test_the_site_has_every_page() -> None:
    nav = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2]
    listed = set(re.findall(r"- (?:[^:\n]+: )?([\w/]+\.md)$", nav, re.M))
    pages = {_name(page).removeprefix("docs/") for page in PAGES} - {"README.md"}
    assert pages == listed - {"index.md"}


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120
