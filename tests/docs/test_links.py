"""Every link of every Markdown page leads somewhere, and no page is forgotten."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.markdown import DOCS, PROJECT, anchors, links, pages, read, table


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.relative_to(PROJECT).as_posix())
def test_relative_links_resolve(page: Path) -> None:
    for link in links(read(page)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link}: there is no {path}"
        assert target.is_relative_to(PROJECT), link
        if anchor:
            assert anchor in anchors(read(target)), f"{link}: no such heading"


def test_the_readme_leads_to_every_page_of_docs() -> None:
    linked = {(PROJECT / link.partition("#")[0]).resolve() for link in links(read(PROJECT / "README.md"))}
    linked |= {(DOCS / link).resolve() for link in links(read(DOCS / "performance.md"))}  # its figures and plots
    assert {*DOCS.glob("*.*"), DOCS / "adr/README.md"} <= linked


def test_the_index_of_decisions_is_whole() -> None:
    index = read(DOCS / "adr/README.md")
    decisions = sorted(path.name for path in (DOCS / "adr").glob("0*.md"))
    assert [link for link in links(index) if link in decisions[1:]] == decisions[1:]
    titles = [row[1] for row in table(index, header=("Number", "Decision")).rows]
    for number, (name, title) in enumerate(zip(decisions, titles, strict=True), 1):
        text = read(DOCS / "adr" / name)
        assert name.startswith(f"{number:04}-"), f"{name}: the numbers have a gap"
        assert text.startswith(f"# {number:04}: "), name
        assert text.splitlines()[0].partition(": ")[2].startswith(title), f"{name}: the index calls it {title}"
        assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["Context", "Decision", "Consequences"], name


def test_no_page_has_lines_beyond_the_limit() -> None:
    for page in [PROJECT / "README.md", PROJECT / "CHANGELOG.md", *DOCS.rglob("*.md")]:
        for number, line in enumerate(read(page).splitlines(), 1):
            assert len(line) <= 120 or line.startswith("|"), f"{page}:{number}"
