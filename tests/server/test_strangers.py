"""Of those who say nothing, the log has so many lines; who says hello has all of its own."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from lpt_service.server import strangers as module
from lpt_service.server.daemon import Daemon
from tests.server.fakes import Peer, status


def lines(caplog: pytest.LogCaptureFixture, text: str) -> list[str]:
    return [record.getMessage() for record in caplog.records if text in record.getMessage()]


async def test_a_flood_has_so_many_lines_and_is_counted(
    daemon: Daemon, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(module, "STRANGERS_A_WINDOW", 3)
    daemon.strangers = module.StrangerLog(daemon.clock)
    for _ in range(10):
        peer = Peer(daemon)
        peer.stream.feed(b"\x94")
        await wait_all_tasks_blocked()
        peer.stream.end()
        await wait_all_tasks_blocked()
    assert (len(lines(caplog, "connected from")), len(lines(caplog, "ended"))) == (3, 3)
    known = Peer(daemon)
    await known.say_hello(client="me")
    known.stream.end()
    await wait_all_tasks_blocked()
    number = known.session.number
    assert lines(caplog, f"session {number} ") == [
        f"session {number} (anonymous): hello from 'me' for port LPT1",
        f"session {number} (anonymous): ended",
    ]
    await trio.sleep(60)
    Peer(daemon).stream.feed(b"\x94")
    await wait_all_tasks_blocked()
    assert lines(caplog, "not logged") == ["8 connections more in a minute than 3 were not logged"]
    assert len(lines(caplog, "connected from")) == 4


@pytest.mark.parametrize("failure", [None, ConnectionResetError("reset")])
async def test_who_comes_and_leaves_without_a_word_is_counted_only(
    daemon: Daemon,
    autojump_clock: MockClock,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    failure: Exception | None,
) -> None:
    """A health check. However many there are, they take no lines from others; at the level debug each has one."""
    monkeypatch.setattr(module, "STRANGERS_A_WINDOW", 1)
    daemon.strangers = module.StrangerLog(daemon.clock)
    caplog.set_level("DEBUG")
    await wait_all_tasks_blocked()
    caplog.clear()
    for _ in range(10):
        peer = Peer(daemon)
        await wait_all_tasks_blocked()
        if failure is None:
            peer.stream.end()
        else:
            peer.stream.break_(failure)
        await wait_all_tasks_blocked()
    assert [record for record in caplog.records if record.levelname != "DEBUG"] == []
    assert len(lines(caplog, "memory connected and left without a word")) == len(caplog.records) == 10
    assert status(daemon)["left_silently"] == 10
    caplog.clear()
    garbage = Peer(daemon)
    garbage.stream.feed(b"GET / HTTP/1.1")
    await wait_all_tasks_blocked()
    assert [record.getMessage().partition(": ")[2] for record in caplog.records if record.levelname == "INFO"] == [
        "connected from memory",
        "closing: not a frame: a message is an array that begins with 0, 1 or 2",
        "ended",
    ]


async def test_who_says_nothing_and_stays_has_lines(
    daemon: Daemon, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    Peer(daemon)
    await trio.sleep(11)
    said = [line.partition(": ")[2] for line in lines(caplog, "session ")]
    assert said == ["connected from memory", "closing: no hello within 10 s", "ended"]
    assert status(daemon)["left_silently"] == 0


async def test_errors_are_logged_all_the_same(
    daemon: Daemon, autojump_clock: MockClock, errors_logged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STRANGERS_A_WINDOW", 0)
    daemon.strangers = module.StrangerLog(daemon.clock)
    peer = Peer(daemon)
    peer.session.outbox.pump = None  # type: ignore[assignment,method-assign]
    peer.send("ping")
    await wait_all_tasks_blocked()
    assert any("internal error" in line for line in errors_logged)
    errors_logged.clear()
