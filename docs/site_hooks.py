"""Hooks of mkdocs: the README is the first page; files outside docs/ that pages link to become pages."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path, PurePosixPath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
_LINK = re.compile(r"(\]\()([^)#\s]+)((?:#[^)]*)?\))")
_LANGUAGES = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".js": "js", ".sh": "sh", ".cpp": "cpp"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add index.md, reference/python.md and a page for each file outside docs/ that a page leads to."""
    readme = ROOT / "README.md"
    files.append(File.generated(config, "index.md", content=_within(readme.read_text(), ROOT, "index.md")))
    files.append(File.generated(config, "reference/python.md", content=_python_reference()))
    pages = [readme, *(Path(p.abs_src_path) for p in files.documentation_pages() if p.abs_src_path)]
    made: set[Path] = {readme}
    while pages:
        page = pages.pop()
        if page.suffix != ".md":
            continue
        for target in _targets(page.read_text(), page.parent) - made:
            if not target.is_relative_to(DOCS):
                files.append(File.generated(config, _uri(target), content=_as_page(target)))
                made.add(target)
                pages.append(target)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Make links of the pages in docs/ that leave it lead to the pages made for them."""
    source = page.file.abs_src_path
    if source is None or not Path(source).is_relative_to(DOCS):
        return markdown
    return _within(markdown, Path(source).parent, page.file.src_uri)


def _python_reference() -> str:
    """A section for each public name of the package, in the order of the alphabet."""
    import advisor

    names = sorted((name for name in advisor.__all__ if name[0] != "_"), key=str.lower)
    sections = "\n".join(f"::: advisor.{name}\n" for name in names)
    return f"# Python\n\nThe public names of the package, made from the source.\n\n{sections}"


def _within(text: str, folder: Path, page: str) -> str:
    """The text of a file in ``folder``, its local links made relative to the address ``page``."""

    def inside(match: re.Match[str]) -> str:
        target = _target(match[2], folder)
        if target is None:
            return match[0]
        return f"{match[1]}{posixpath.relpath(_uri(target), PurePosixPath(page).parent)}{match[3]}"

    return _LINK.sub(inside, text)


def _targets(text: str, folder: Path) -> set[Path]:
    return {target for _, link, _ in _LINK.findall(text) if (target := _target(link, folder)) is not None}


def _target(link: str, folder: Path) -> Path | None:
    """The file or folder of the repository that a relative link names; None for any other link."""
    if "://" in link or link.startswith(("/", "mailto:")):
        return None
    target = (folder / link).resolve()
    return target if target.exists() and target.is_relative_to(ROOT) else None


def _uri(target: Path) -> str:
    """Where a file of the repository stands in the site."""
    if target == ROOT / "README.md":
        return "index.md"
    if target.is_relative_to(DOCS):
        return str(target.relative_to(DOCS))
    inner = str(target.relative_to(ROOT))
    return f"code/{inner}" if target.suffix == ".md" else f"code/{inner}.md"


def _as_page(path: Path) -> str:
    """A file as code; a folder as the list of its files; Markdown as it is."""
    name = path.relative_to(ROOT)
    if path.is_dir():
        rows = "\n".join(f"- `{child.name}`" for child in sorted(path.iterdir()) if child.name[0] not in "._")
        return f"# {name}\n\n{rows}\n"
    if path.suffix == ".md":
        return _within(path.read_text(), path.parent, _uri(path))
    return f"# {name}\n\n```{_LANGUAGES.get(path.suffix, 'text')}\n{path.read_text()}```\n"
