"""Of those who say nothing, the log has so many lines; who says hello has all of its own."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from lpt_service.server import strangers as module
from lpt_service.server.daemon import Daemon
from tests.server.fakes import Peer


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
    Peer(daemon)
    await wait_all_tasks_blocked()
    assert lines(caplog, "not logged") == ["8 connections more in a minute than 3 were not logged"]
    assert len(lines(caplog, "connected from")) == 4


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
