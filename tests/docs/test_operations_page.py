"""docs/operations.md tells of every setting and every field of the log as they are, and names files that exist."""

from __future__ import annotations

import json
import logging
import re

import pytest

from lpt_service import journal
from tests.docs.markdown import DOCS, PROJECT, blocks, read, table
from tests.docs.test_example_config import FIELDS, KEYS, bounds

PAGE = read(DOCS / "operations.md")
SETTINGS = {(row[0].split(".")[0], row[0].split(".")[1]): row for row in table(PAGE, heading="Configure").rows}


def test_every_setting_is_there_once() -> None:
    assert set(SETTINGS) == set(FIELDS)
    assert len(table(PAGE, heading="Configure").rows) == len(FIELDS)


@pytest.mark.parametrize("path", FIELDS, ids=".".join)
def test_a_setting_has_its_default_its_range_and_says_when_it_changes(path: tuple[str, str]) -> None:
    _, _, unit, default, range_, changes = SETTINGS[path]
    field = FIELDS[path]
    if field.is_required():
        assert default == "required"
    elif field.default is None:
        assert default.startswith("unset")
    elif not isinstance(field.default, tuple):
        shown = f"{field.default:g}" if isinstance(field.default, float) else json.dumps(field.default)
        assert default == shown
    for bound in bounds(field):
        assert re.search(rf"\b{bound:.0f}\b", range_), (bound, range_)
    assert (changes == "restart") == ("; restart" in KEYS[path].facts)
    assert (path[1].endswith("_s")) == (unit == "s")


def test_a_unit_of_a_setting_is_that_of_the_example() -> None:
    for path, (_, _, unit, *_) in SETTINGS.items():
        if unit == "s":
            assert KEYS[path].facts.startswith("Seconds")


def test_every_field_of_the_log_is_told() -> None:
    named = {name for row in table(PAGE, heading="The log").rows for name in row[0].split(", ")}
    handler = journal.JournalHandler("/nowhere")
    record = logging.LogRecord("lpt_service", logging.INFO, __file__, 1, "x", (), None)
    record.port, record.session, record.client, record.identity = "LPT1", 1, "a", "user:a"
    record.event, record.grant = "granted", 1
    assert set(handler._fields(record)) == named
    handler.close()
    assert f"beyond {journal.VALUE_MAX_BYTES // 1024} KiB is cut" in PAGE


def test_files_are_those_of_deploy() -> None:
    named = {row[0] for row in table(PAGE, heading="Install").rows}
    files = {path.relative_to(PROJECT).as_posix() for path in (PROJECT / "deploy").rglob("*") if path.is_file()}
    assert named == {name for name in files if not name.startswith("deploy/debian/")}  # those make the package
    (commands,) = (block for block in blocks(PAGE, "sh") if "make wheel" in block.text)
    for path in re.findall(r"deploy/[\w./-]+", commands.text):
        assert (PROJECT / path.rstrip("/")).exists(), path


def test_what_the_unit_says_is_what_the_page_says() -> None:
    unit = read(PROJECT / "deploy/systemd/lptd.service")
    assert "WatchdogSec=15\n" in unit
    assert "After 15 s without one" in PAGE
    assert "every 7.5 s" in PAGE
    assert "RestartSec=2\n" in unit
    assert "restarted 2 s after whatever ended it" in PAGE
