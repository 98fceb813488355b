"""MkDocs hook: the pages outside ``docs/`` become pages of the site, and links follow them."""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"(?<=\]\()([^)\s#]+)(?=[)#])")
CODE = re.compile(r"(^```.*?^```$|`[^`\n]+`)", re.MULTILINE | re.DOTALL)


def _outside() -> list[str]:
    """The pages and notebooks outside ``docs/``, relative to the repository."""
    examples = ROOT / "examples"
    pages = [*ROOT.glob("*.md"), *examples.rglob("*.md"), *examples.glob("*.ipynb")]
    return sorted(page.relative_to(ROOT).as_posix() for page in pages)


def _site_path(path: str) -> str:
    """Where the site has a file of the repository."""
    return "index.md" if path == "README.md" else path.removeprefix("docs/")


def _repository_path(path: str) -> str:
    """Where the repository has a page of the site."""
    if path == "index.md":
        return "README.md"
    return path if path in _outside() else f"docs/{path}"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages outside ``docs/``."""
    for path in _outside():
        files.append(File.generated(config, _site_path(path), abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Make links between files of the repository links between pages of the site."""
    here = page.file.src_uri
    folder = posixpath.dirname(_repository_path(here))

    def follow(link: re.Match[str]) -> str:
        if "://" in link[1] or link[1].startswith("mailto:"):
            return link[1]
        target = posixpath.normpath(posixpath.join(folder, link[1]))
        return posixpath.relpath(_site_path(target), posixpath.dirname(here) or ".")

    parts = CODE.split(markdown)
    parts[::2] = [LINK.sub(follow, part) for part in parts[::2]]
    return "".join(parts)
