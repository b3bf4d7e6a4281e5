"""Records for the journal: their form byte by byte, at a socket of the test's; and when they are used."""

from __future__ import annotations

import logging
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lpt_service import journal, log
from lpt_service.journal import VALUE_MAX_BYTES, JournalHandler, encode, is_standard_error


class Journal:
    """The journal's socket."""

    def __init__(self, folder: str) -> None:
        self.path = f"{folder}/socket"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.socket.setblocking(False)

    def records(self) -> list[dict[str, str]]:
        """What has come, read as the journal does."""
        found: list[dict[str, str]] = []
        while True:
            try:
                found.append(decode(self.socket.recv(1 << 20)))
            except BlockingIOError:
                return found


def decode(data: bytes) -> dict[str, str]:
    fields: dict[str, str] = {}
    while data:
        line, data = data.split(b"\n", 1)
        name, separator, value = line.partition(b"=")
        if not separator:
            length = int.from_bytes(data[:8], "little")
            value, data = data[8 : 8 + length], data[8 + length :]
            assert data[:1] == b"\n"
            data = data[1:]
        fields[name.decode()] = value.decode()
    return fields


@pytest.fixture
def journald() -> Iterator[Journal]:
    with tempfile.TemporaryDirectory() as folder:
        found = Journal(folder)
        yield found
        found.socket.close()


@pytest.fixture
def handler(journald: Journal) -> Iterator[JournalHandler]:
    handler = JournalHandler(journald.path)
    yield handler
    handler.close()


@pytest.fixture
def logger(handler: JournalHandler) -> Iterator[logging.Logger]:
    logger = logging.getLogger("lpt_service.test_journal")
    logger.addHandler(handler)
    before, logger.propagate = logger.propagate, False
    logger.setLevel(logging.DEBUG)
    yield logger
    logger.removeHandler(handler)
    logger.propagate = before


# The form


def test_a_plain_value_is_a_line_and_one_with_line_breaks_has_its_length() -> None:
    assert encode({"A": "x=y", "B": ""}) == b"A=x=y\nB=\n"
    assert encode({"A": "one\ntwo", "B": "z"}) == b"A\n\x07\0\0\0\0\0\0\0one\ntwo\nB=z\n"
    assert encode({"A": "grün\n"}) == b"A\n\x06\0\0\0\0\0\0\0gr\xc3\xbcn\n\n"


def test_a_value_cannot_make_a_field() -> None:
    assert decode(encode({"LPT_CLIENT": "x\nPRIORITY=0\n_UID=0", "PRIORITY": "6"})) == {
        "LPT_CLIENT": "x\nPRIORITY=0\n_UID=0",
        "PRIORITY": "6",
    }


def test_a_long_value_is_cut_and_says_so() -> None:
    (value,) = decode(encode({"MESSAGE": "x" * (VALUE_MAX_BYTES + 1)})).values()
    assert len(value) == VALUE_MAX_BYTES
    assert value.endswith("x ... (cut)")
    assert decode(encode({"MESSAGE": "x" * VALUE_MAX_BYTES})) == {"MESSAGE": "x" * VALUE_MAX_BYTES}


def test_what_is_no_unicode_is_replaced() -> None:
    assert encode({"A": "\udcff"}) == b"A=?\n"


# Records


def test_a_record_has_its_fields(journald: Journal, logger: logging.Logger) -> None:
    logger.warning("port %s is slow", "LPT1", extra={"port": "LPT1", "session": 7, "client": "a\nb"})
    (record,) = journald.records()
    line = record.pop("CODE_LINE")
    assert record == {
        "MESSAGE": "port LPT1 is slow",
        "PRIORITY": "4",
        "SYSLOG_IDENTIFIER": "lptd",
        "LOGGER": "lpt_service.test_journal",
        "CODE_FILE": __file__,
        "CODE_FUNC": "test_a_record_has_its_fields",
        "LPT_PORT": "LPT1",
        "LPT_SESSION": "7",
        "LPT_CLIENT": "a\nb",
    }
    assert "is slow" in Path(__file__).read_text().splitlines()[int(line) - 1]


def test_levels_are_priorities(journald: Journal, logger: logging.Logger) -> None:
    for level in (logging.CRITICAL, logging.ERROR, logging.WARNING, logging.INFO, logging.DEBUG, 25):
        logger.log(level, "x")
    assert [record["PRIORITY"] for record in journald.records()] == ["2", "3", "4", "6", "7", "6"]


def test_a_traceback_is_one_record(journald: Journal, logger: logging.Logger) -> None:
    try:
        raise ValueError("on purpose")
    except ValueError:
        logger.exception("it failed")
    (record,) = journald.records()
    lines = record["MESSAGE"].splitlines()
    assert (lines[0], lines[-1]) == ("it failed", "ValueError: on purpose")


def test_a_session_s_record_names_port_and_client_once_they_are_known(
    journald: Journal, logger: logging.Logger
) -> None:
    session = log.SessionLogger(logger, 3, "cert:rig")
    session.info("connected")
    session.said_hello("LPT2", "EEG")
    session.info("hello")
    fields = [{name: value for name, value in each.items() if name.startswith("LPT_")} for each in journald.records()]
    known = {"LPT_SESSION": "3", "LPT_IDENTITY": "cert:rig"}
    assert fields == [known, {**known, "LPT_PORT": "LPT2", "LPT_CLIENT": "EEG"}]


def test_a_message_that_cannot_be_made_harms_nobody(
    journald: Journal, logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)
    logger.info("%d", "no number")
    logger.info("next")
    assert [record["MESSAGE"] for record in journald.records()] == ["next"]


# A journal that does not read


def test_what_is_not_taken_is_counted_and_told_with_the_next(
    journald: Journal, handler: JournalHandler, logger: logging.Logger
) -> None:
    while not handler.dropped:
        logger.info("x")
    for _ in range(4):
        logger.info("lost")
    assert handler.dropped == 5
    assert "lost" not in {record["MESSAGE"] for record in journald.records()}
    logger.info("back")
    told, back = journald.records()
    assert told["MESSAGE"] == "5 log lines are missing here: the journal did not take them"
    assert told["PRIORITY"] == "4"
    assert back["MESSAGE"] == "back"
    assert handler.dropped == 0


def test_a_journal_that_is_restarted_hears_again(
    journald: Journal, handler: JournalHandler, logger: logging.Logger
) -> None:
    journald.socket.close()
    logger.info("lost")
    assert handler.dropped == 1
    os.unlink(journald.path)
    again = Journal(os.path.dirname(journald.path))
    logger.info("back")
    assert [record["MESSAGE"][:6] for record in again.records()] == ["1 log ", "back"]
    again.socket.close()


# When it is used


@pytest.fixture
def standard_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard error is what the journal gave."""
    found = os.fstat(2)
    monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")


@pytest.fixture
def project_logger() -> Iterator[logging.Logger]:
    """The project's logger, put back as it was."""
    logger = logging.getLogger("lpt_service")
    before = logger.handlers[:], logger.propagate, logger.level
    yield logger
    for each in logger.handlers:
        each.close()
    logger.handlers[:], logger.propagate = before[:2]
    logger.setLevel(before[2])


@pytest.mark.usefixtures("standard_error")
def test_connected_to_the_journal_records_go_there(
    journald: Journal,
    project_logger: logging.Logger,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(journal, "SOCKET_PATH", journald.path)
    assert is_standard_error()
    log.configure("info")
    with log.about_port("LPT1"):
        project_logger.info("hello")
        project_logger.info("other", extra={"port": "LPT2"})
    project_logger.info("nobody's")
    records = journald.records()
    assert [(each["MESSAGE"], each.get("LPT_PORT")) for each in records] == [
        ("hello", "LPT1"),
        ("other", "LPT2"),
        ("nobody's", None),
    ]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("stream", [None, "", "1:2", "nonsense"])
def test_elsewhere_lines_are_plain(
    stream: str | None,
    project_logger: logging.Logger,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """$JOURNAL_STREAM is inherited by whoever is started with another standard error."""
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    if stream is not None:
        monkeypatch.setenv("JOURNAL_STREAM", stream)
    assert not is_standard_error()
    log.configure("info")
    project_logger.info("hello")
    assert capsys.readouterr().err.endswith(" INFO hello\n")


@pytest.mark.usefixtures("standard_error")
def test_without_a_standard_error_there_is_no_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "_STANDARD_ERROR", 1 << 20)
    assert not is_standard_error()
