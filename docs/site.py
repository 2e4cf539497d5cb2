"""What `make docs` adds to the pages of this folder: README as the home page, the page of commands, and
whatever else of the repository the pages link to."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

from licodec.cli.reference import guide_page

LINK = re.compile(r"(\]\()([^)#:\s]+)")
ROOT = Path(__file__).resolve().parent.parent
HOME = "README.md"


def on_files(files: Files, config: Any) -> Files:
    """Add the generated page, and every file that a page links to, and so on from there."""
    files.append(File.generated(config, "commands.md", content=guide_page()))
    waiting = [HOME, *(f"docs/{file.src_uri}" for file in files.documentation_pages())]
    seen = set()
    while waiting:
        path = waiting.pop()
        if path in seen or not (ROOT / path).is_file():
            continue
        seen.add(path)
        if files.get_file_from_path(in_site(path)) is None:
            files.append(File.generated(config, in_site(path), abs_src_path=str(ROOT / path)))
        if path.endswith(".md"):
            text = (ROOT / path).read_text("utf-8")
            waiting += [resolved(path, link) for _, link in LINK.findall(text)]
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links as they are in the repository, turned to where the files are in the site."""
    path = in_repository(page.file.src_uri)

    def turned(match: re.Match[str]) -> str:
        target = in_site(resolved(path, match[2]))
        return match[1] + posixpath.relpath(target, posixpath.dirname(page.file.src_uri) or ".")

    return LINK.sub(turned, markdown)


def resolved(path: str, link: str) -> str:
    """The path in the repository that a link on the page `path` names."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(path), link))


def in_site(path: str) -> str:
    """Where a file of the repository is in the site."""
    if path == HOME:
        return "index.md"
    return path[len("docs/") :] if path.startswith("docs/") else f"repository/{path}"


def in_repository(uri: str) -> str:
    if uri == "index.md":
        return HOME
    return uri[len("repository/") :] if uri.startswith("repository/") else f"docs/{uri}"
