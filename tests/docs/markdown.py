"""Reading the project's Markdown pages, as far as its tests need that: headings, tables, fenced blocks, links."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

PROJECT = Path(__file__).parent.parent.parent
DOCS = PROJECT / "docs"

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^(#+) (.+)$")
_LINK = re.compile(r"\[(?:[^]\[]|\[[^]]*])*]\(([^)\s]+)\)")


class Table(NamedTuple):
    """A table: the heading above it, its header, its rows; cells are bare text."""

    heading: str
    header: tuple[str, ...]
    rows: list[tuple[str, ...]]


class Block(NamedTuple):
    """A fenced block: the heading above it, its language, its text."""

    heading: str
    language: str
    text: str


def read(path: Path) -> str:
    """A page's text."""
    return path.read_text(encoding="utf-8")


def pages() -> list[Path]:
    """Every Markdown page of the project."""
    folders = (PROJECT, DOCS, PROJECT / "clients", PROJECT / "deploy", PROJECT / "tests")
    found = [*PROJECT.glob("*.md"), *(page for folder in folders[1:] for page in folder.rglob("*.md"))]
    return sorted(found)


def _headings(text: str) -> list[tuple[int, str]]:
    """Each heading with its offset; not what looks like one in a fenced block."""
    bare = _FENCE.sub(lambda match: " " * len(match[0].encode("utf-16-le")[::2]), text)
    found, offset = [], 0
    for line in bare.splitlines(keepends=True):
        match = _HEADING.match(line.rstrip("\n"))
        if match:
            found.append((offset, match[2].strip()))
        offset += len(line)
    return found


def _heading_at(text: str, offset: int) -> str:
    before = [heading for at, heading in _headings(text) if at < offset]
    return before[-1] if before else ""


def blocks(text: str, language: str | None = None) -> list[Block]:
    """The fenced blocks, of one language or of all."""
    found = [Block(_heading_at(text, match.start()), match[1], match[2]) for match in _FENCE.finditer(text)]
    return [block for block in found if language in (None, block.language)]


def tables(text: str) -> list[Table]:
    """Every table."""
    found: list[Table] = []
    heading, lines = "", text.splitlines()
    in_fence = False
    for number, line in enumerate(lines):
        in_fence ^= line.startswith("```")
        if in_fence:
            continue
        match = _HEADING.match(line)
        if match:
            heading = match[2].strip()
        elif line.startswith("|") and number + 1 < len(lines) and re.fullmatch(r"\|(-+\|)+", lines[number + 1]):
            rows = []
            for row in lines[number + 2 :]:
                if not row.startswith("|"):
                    break
                rows.append(_cells(row))
            found.append(Table(heading, _cells(line), rows))
    return found


def table(text: str, *, header: tuple[str, ...] | None = None, heading: str | None = None) -> Table:
    """The one table with this header (its first cells), or below this heading, or both."""
    found = [
        each
        for each in tables(text)
        if (header is None or each.header[: len(header)] == header) and heading in (None, each.heading)
    ]
    assert len(found) == 1, f"{len(found)} tables with header {header} below {heading}"
    return found[0]


def _cells(row: str) -> tuple[str, ...]:
    """The cells of a row, without the marks of code and emphasis."""
    return tuple(re.sub(r"[`*]", "", cell).strip() for cell in row.strip().strip("|").split("|"))


def links(text: str) -> list[str]:
    """The targets of every link."""
    return _LINK.findall(_FENCE.sub("", text))


def anchors(text: str) -> set[str]:
    """The names by which a page's headings can be linked to."""
    found: set[str] = set()
    for _, heading in _headings(text):
        bare = re.sub(r"\[([^]]*)]\([^)]*\)", r"\1", heading).lower()
        found.add(re.sub(r"[^\w\- ]", "", bare).replace(" ", "-"))
    return found
