"""Reloading with clients connected: nobody's connection, ownership or place in the queue is touched."""

from __future__ import annotations

import hashlib
import logging
import os
import signal
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from lpt_service.config import Config
from lpt_service.protocol.url import Url
from lpt_service.server.daemon import Daemon
from lpt_service.server.peer_watch import LOOK_INTERVAL_MAX_S
from lpt_service.server.systemd import Handover
from tests.server.fakes import Peer, VirtualClock, config, enter, is_open, status, until


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short name: the path of a Unix socket has 107 bytes at the most."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


class Reloading:
    """A daemon, and the configuration that it reads next."""

    def __init__(self, *sockets: socket.socket, **sections: Any) -> None:
        self.next: Config = config(**sections)
        self.announced: list[Url] = []
        self.daemon = Daemon(
            self.next,
            announce=self.announced.append,
            reread=lambda: self.next,
            clock=VirtualClock(),
            handover=Handover(sockets=sockets),
        )

    async def reload(self, **sections: Any) -> None:
        self.next = config(**sections)
        await self.daemon.reload()


def server(*urls: str, **keys: Any) -> dict[str, Any]:
    return {"listen": [{"url": url, "insecure": True} for url in urls], **keys}


async def owner_and_waiter(daemon: Daemon) -> tuple[Peer, Peer, int]:
    owner, waiter = await enter(daemon), await enter(daemon)
    await owner.result(owner.allocate())
    waiting = waiter.allocate()
    await waiter.messages()
    return owner, waiter, waiting


async def check_undisturbed(daemon: Daemon, owner: Peer, waiter: Peer, waiting: int) -> None:
    assert is_open(owner)
    assert is_open(waiter)
    assert status(daemon)["waiting"] == 1
    await owner.result(owner.free())
    assert await waiter.result(waiting) == [0, b""]


async def test_listeners_come_and_go_and_who_came_through_them_stays(
    nursery: trio.Nursery, autojump_clock: MockClock, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    old, new = f"lpt+unix://{folder}/old", f"lpt+unix://{folder}/new"
    reloading = Reloading(server=server(old))
    daemon = reloading.daemon
    await nursery.start(daemon.run)
    owner, waiter, waiting = await owner_and_waiter(daemon)
    with socket.socket(socket.AF_UNIX) as before, socket.socket(socket.AF_UNIX) as after:
        before.connect(f"{folder}/old")
        await reloading.reload(server=server(new))
        await wait_all_tasks_blocked()
        assert os.listdir(folder) == ["new"]
        assert [str(url) for url in reloading.announced] == [f"{old}#LPT1", f"{new}#LPT1"]
        assert f"reload: no longer listening on {old}" in caplog.text
        after.connect(f"{folder}/new")
        # Who had connected to the old one is served, and who comes to the new one.
        await until(lambda: len(daemon.sessions) == 4)
        await check_undisturbed(daemon, owner, waiter, waiting)
    daemon.stop()


async def test_a_listener_that_cannot_be_opened_refuses_all_that_is_new(
    nursery: trio.Nursery, autojump_clock: MockClock, folder: Path, errors_logged: list[str]
) -> None:
    old = f"lpt+unix://{folder}/old"
    reloading = Reloading(server=server(old), limits={"max_sessions": 7})
    daemon = reloading.daemon
    await nursery.start(daemon.run)
    await reloading.reload(
        server=server(f"lpt+unix://{folder}/new", "lpt+unix:///no/such/s", "lpt://192.0.2.1:1"),
        limits={"max_sessions": 9},
        port=[{"enable_connect_interrupt": True}],
    )
    assert [line.partition(": cannot")[0] for line in errors_logged] == [
        "reload refused: server.listen[1]",
        "reload refused: server.listen[2]",
    ]
    errors_logged.clear()
    assert daemon.limits.max_sessions == 7
    assert not daemon.workers["LPT1"].driver.settings.enable_connect_interrupt
    assert os.listdir(folder) == ["old"]
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(f"{folder}/old")
        await until(lambda: len(daemon.sessions) == 1)
    await reloading.reload(server=server(old), limits={"max_sessions": 9})
    assert daemon.limits.max_sessions == 9


async def test_systemd_s_listeners_stay_and_are_named(
    nursery: trio.Nursery, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    sock = socket.create_server(("127.0.0.1", 0))
    url = f"lpt://127.0.0.1:{sock.getsockname()[1]}"
    reloading = Reloading(sock, server=server(url))
    await nursery.start(reloading.daemon.run)
    assert [str(each) for each in reloading.announced] == [f"{url}/LPT1"]
    await reloading.reload(server=server("lpt://127.0.0.2:0"))
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warnings == [f"reload: {url} stays, systemd holds it: change lptd.socket"]
    with socket.create_connection((reloading.announced[0].host, reloading.announced[0].tcp_port)):
        await until(lambda: len(reloading.daemon.sessions) == 1)
    caplog.clear()
    await reloading.reload(server=server("lpt://127.0.0.2:0"))
    assert caplog.records == [] or all(record.levelno < logging.WARNING for record in caplog.records)


async def test_limits_and_tokens_hold_for_who_comes_and_drop_nobody(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    reloading = Reloading()
    daemon = reloading.daemon
    await nursery.start(daemon.run)
    owner, waiter, waiting = await owner_and_waiter(daemon)
    await reloading.reload(
        limits={"max_sessions": 1, "max_waiters": 1, "max_pending_requests": 1, "max_registrations": 1},
        token=[{"name": "a", "sha256": hashlib.sha256(b"x").hexdigest()}],
    )
    stranger, late = Peer(daemon), Peer(daemon)
    assert await stranger.status_of(stranger.send("hello", {"protocol": 1})) == "STATUS_ACCESS_DENIED"
    hello = late.send("hello", {"protocol": 1, "token": "x"})
    assert await late.status_of(hello) == "STATUS_INSUFFICIENT_RESOURCES"
    await check_undisturbed(daemon, owner, waiter, waiting)


async def test_dead_peer_s_holds_for_connections_that_are_there(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """Their sockets are told, and one that is silent already is noticed sooner, or later."""
    reloading = Reloading(limits={"dead_peer_s": 100})
    await nursery.start(reloading.daemon.run)
    good, silent = await enter(reloading.daemon), await enter(reloading.daemon)
    silent.stream.silent_since_s = trio.current_time()
    await trio.sleep(3)
    await reloading.reload(limits={"dead_peer_s": 5})
    assert good.stream.dead_peer_s == silent.stream.dead_peer_s == 5
    await trio.sleep(1.5)
    assert is_open(silent)
    await trio.sleep(LOOK_INTERVAL_MAX_S)
    assert not is_open(silent)
    assert is_open(good)

    patient = await enter(reloading.daemon)
    patient.stream.silent_since_s = trio.current_time()
    await trio.sleep(3)
    await reloading.reload(limits={"dead_peer_s": 60})
    await trio.sleep(50)
    assert is_open(patient)
    await trio.sleep(10 + LOOK_INTERVAL_MAX_S)
    assert not is_open(patient)


async def test_unread_reply_s_holds_for_replies_that_wait(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    reloading = Reloading()
    await nursery.start(reloading.daemon.run)
    deaf = await enter(reloading.daemon, room=1)
    deaf.send("ping")
    await trio.sleep(20)
    assert not deaf.session.is_leaving
    await reloading.reload(limits={"unread_reply_s": 10})
    await trio.sleep(LOOK_INTERVAL_MAX_S)
    assert deaf.session.is_leaving


async def test_dead_peer_s_of_a_connection_that_is_just_going(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    reloading = Reloading()
    await nursery.start(reloading.daemon.run)
    going, good = await enter(reloading.daemon), await enter(reloading.daemon)
    going.stream.failure = ConnectionResetError()
    await reloading.reload(limits={"dead_peer_s": 5})
    assert good.stream.dead_peer_s == 5


async def test_the_log_level_and_the_time_to_stop(autojump_clock: MockClock) -> None:
    logger = logging.getLogger("lpt_service")
    before = logger.level
    try:
        async with trio.open_nursery() as nursery:
            reloading = Reloading()
            await nursery.start(reloading.daemon.run)
            await reloading.reload(server=server("lpt://127.0.0.1:0", log_level="debug", stop_timeout_s=0.5))
            assert logger.level == logging.DEBUG
            deaf = await enter(reloading.daemon, room=1)
            deaf.send("ping")
            await wait_all_tasks_blocked()
            reloading.daemon.stop()
        assert trio.current_time() == pytest.approx(0.5)
    finally:
        logger.setLevel(before)


async def test_what_needs_a_restart_stays_as_it_was_and_is_named_each_time(
    nursery: trio.Nursery, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    reloading = Reloading()
    await nursery.start(reloading.daemon.run)
    for _ in range(2):
        caplog.clear()
        await reloading.reload(
            server=server("lpt://127.0.0.1:0", state_directory=str(tmp_path)),
            port=[{"device": "/dev/parport9", "interrupt_log_frames": 16, "loopback": False, "safe_data": 1}],
        )
        assert [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING] == [
            "reload: device of port LPT1 needs a restart",
            "reload: interrupt_log_frames of port LPT1 needs a restart",
            "reload: loopback of port LPT1 needs a restart",
            "reload: server.state_directory needs a restart",
        ]
    driver = reloading.daemon.workers["LPT1"].driver
    assert driver.settings.safe_data == 1, "the rest of the port's settings has changed"
    assert driver.settings.interrupt_log_frames == driver.registry.log.capacity == 65_536


async def test_a_daemon_that_stops_opens_nothing_any_more(
    nursery: trio.Nursery, autojump_clock: MockClock, folder: Path
) -> None:
    reloading = Reloading()
    await nursery.start(reloading.daemon.run)
    deaf = await enter(reloading.daemon, room=1)
    deaf.send("ping")
    await wait_all_tasks_blocked()
    reloading.daemon.stop()
    await reloading.reload(server=server(f"lpt+unix://{folder}/s"))
    assert os.listdir(folder) == []


async def test_a_signal_that_comes_while_the_daemon_starts_is_heeded_once_it_serves(
    nursery: trio.Nursery, autojump_clock: MockClock, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    reloading = Reloading(server=server(f"lpt+unix://{folder}/old"))
    reloading.next = config(server=server(f"lpt+unix://{folder}/new"))
    daemon = reloading.daemon
    daemon.heed(signal.SIGHUP)
    await nursery.start(daemon.run)
    await until(lambda: "reloaded" in caplog.messages)
    assert os.listdir(folder) == ["new"]


async def test_a_stop_that_comes_while_the_daemon_starts(autojump_clock: MockClock, folder: Path) -> None:
    daemon = Reloading(server=server(f"lpt+unix://{folder}/s")).daemon
    daemon.heed(signal.SIGTERM)
    await daemon.run()
    assert os.listdir(folder) == []
