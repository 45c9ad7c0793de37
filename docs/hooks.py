"""Pages of the site that live elsewhere in the repository: the README is the first page; links into it are kept."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.structure.files import Files

ROOT = Path(__file__).parents[1]
# Page of the site -> file of the repository.
PAGES = {
    "index.md": "README.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
    "board.md": "jetson/README.md",
    "model.md": "models/README.md",
    "examples.md": "examples/README.md",
}
PICTURES = (ROOT / "bench/results/plots", ROOT / "models")  # outside docs/, shown as results/NAME
_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?:|#|mailto:)([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that lie outside docs/, and their pictures."""
    from mkdocs.structure.files import File

    pictures = {f"results/{path.name}": path for folder in PICTURES for path in folder.glob("*.[sjp][vpn]g")}
    for name, path in {**{name: ROOT / file for name, file in PAGES.items()}, **pictures}.items():
        if path.suffix == ".md":
            files.append(File.generated(config, name, content=path.read_text(encoding="utf-8")))
        else:
            files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Point links at the site's pages; a link to a file that is no page becomes its name."""
    origin = ROOT / PAGES.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    depth = "../" * page.file.src_uri.count("/")
    pages = {(ROOT / file).resolve(): name for name, file in PAGES.items()}
    pages |= {path.resolve(): path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}

    def point(link: re.Match[str]) -> str:
        picture, text, target, anchor = link.groups()
        at = (origin.parent / target).resolve()
        at = at / "README.md" if at.is_dir() else at
        if at in pages:
            return f"{picture}[{text}]({depth}{pages[at]}{anchor or ''})"
        if picture and at.parent in PICTURES:
            return f"![{text}]({depth}results/{at.name})"
        if picture and at.is_relative_to(ROOT / "docs"):
            return f"![{text}]({depth}{at.relative_to(ROOT / 'docs').as_posix()})"
        return text if picture else f"{text} (`{at.relative_to(ROOT).as_posix()}`)"

    return _LINK.sub(point, markdown)
