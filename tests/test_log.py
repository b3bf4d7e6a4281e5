"""Log lines: where they go, and what is before them."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from lpt_service.log import LEVELS, SessionLogger, configure


@pytest.fixture(autouse=True)
def project_logger() -> Iterator[logging.Logger]:
    """The project's logger, put back as it was."""
    logger = logging.getLogger("lpt_service")
    before = logger.handlers[:], logger.propagate, logger.level
    yield logger
    logger.handlers[:], logger.propagate = before[:2]
    logger.setLevel(before[2])


def test_lines_go_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info")
    logging.getLogger("lpt_service.server.session").info("hello")
    logging.getLogger("lpt_service.server.session").debug("too much")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.endswith(" INFO hello\n")
    assert captured.err.count("\n") == 1


def test_configuring_again_replaces(capsys: pytest.CaptureFixture[str]) -> None:
    configure("debug")
    configure("error")
    logging.getLogger("lpt_service").warning("no")
    logging.getLogger("lpt_service").error("yes")
    assert capsys.readouterr().err.endswith(" ERROR yes\n")


@pytest.mark.parametrize("level", LEVELS)
def test_every_level_is_one(level: str, project_logger: logging.Logger) -> None:
    configure(level)
    assert project_logger.level == getattr(logging, level.upper())


def test_a_session_is_named_on_its_lines(caplog: pytest.LogCaptureFixture) -> None:
    SessionLogger(logging.getLogger("lpt_service"), 42, "user:root").warning("hello from %r", "me")
    (record,) = caplog.records
    assert record.getMessage() == "session 42 (user:root): hello from 'me'"
    assert getattr(record, "session") == 42  # noqa: B009 - LogRecord has no such attribute of its own


def test_a_name_with_percent_signs_is_a_name(caplog: pytest.LogCaptureFixture) -> None:
    log = SessionLogger(logging.getLogger("lpt_service"), 42, "token:50%s")
    log.warning("hello from %r", "me")
    log.warning("ended")
    prefix = "session 42 (token:50%s): "
    assert [record.getMessage() for record in caplog.records] == [f"{prefix}hello from 'me'", f"{prefix}ended"]
    assert {record.funcName for record in caplog.records} == {"test_a_name_with_percent_signs_is_a_name"}
