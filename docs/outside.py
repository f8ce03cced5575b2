"""A hook of MkDocs: files outside of docs/ that a page links to become pages of the site.

On a code host `../training/NOTES.md` is that file. In the site it is a page below `repository/`;
what is not Markdown is shown there as text. So every link works in both, and in a copy on a disk.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
FOLDER = "repository/"
LANGUAGES = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".toml": "toml", ".ipynb": "json"}
LINK = re.compile(r"\]\((?![a-z]+:)([^)#\s]+)")


def _target(origin: str, link: str) -> str | None:
    """The file that a link of a file leads to, both relative to the repository; None if none."""
    path = posixpath.normpath(posixpath.join(posixpath.dirname(origin), link))
    return path if not path.startswith("..") and (ROOT / path).is_file() else None


def _shown(path: str) -> str:
    """Where the site has a file of the repository, relative to docs/."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    visible = path.lstrip(".")  # MkDocs leaves out what begins with a dot
    return FOLDER + (visible if path.endswith(".md") else f"{visible}.md")


def _origin(page: str) -> str:
    """The file of the repository that a page, relative to docs/, was made from."""
    return page.removeprefix(FOLDER) if page.startswith(FOLDER) else f"docs/{page}"


def _content(path: str) -> str:
    """The Markdown of a file outside of docs/."""
    text = (ROOT / path).read_text(encoding="utf-8")
    if path.endswith(".md"):
        return text
    return f"# {path}\n\n````{LANGUAGES.get(Path(path).suffix, 'text')}\n{text}\n````\n"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add every file that a page links to, and those that these link to."""
    waiting = [
        (f"docs/{file.src_uri}", file.content_string)
        for file in files
        if file.is_documentation_page()
    ]
    known = {_shown(origin) for origin, _ in waiting}
    while waiting:
        origin, text = waiting.pop()
        for link in LINK.findall(text):
            path = _target(origin, link)
            if path is None or path.startswith("docs/") or _shown(path) in known:
                continue
            known.add(_shown(path))
            files.append(File.generated(config, _shown(path), content=_content(path)))
            if path.endswith(".md"):
                waiting.append((path, _content(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn the links to those files into links to their pages."""
    here = page.file.src_uri
    origin = _origin(here)
    if here.startswith(FOLDER) and not (ROOT / origin).is_file():
        return markdown  # the text of a file, not Markdown

    def turned(match: re.Match[str]) -> str:
        path = _target(origin, match[1])
        if path is None:
            return match[0]
        return "](" + posixpath.relpath(_shown(path), posixpath.dirname(here) or ".")

    return LINK.sub(turned, markdown)
