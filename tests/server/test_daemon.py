"""The daemon as a whole: start, admission, reload, stop; on a virtual clock."""

from __future__ import annotations

import hashlib
import logging
import os
import socket
import struct
import threading
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from lpt_service import log
from lpt_service.config import parse
from lpt_service.port.simulated import SimulatedPort
from lpt_service.protocol.errors import PortGoneError
from lpt_service.protocol.ioctl import Ioctl
from lpt_service.protocol.url import Url
from lpt_service.server.daemon import Daemon
from lpt_service.server.grant_ledger import GrantLedger
from lpt_service.server.listener_set import ListenError
from lpt_service.server.systemd import Handover
from tests.server.fakes import (
    BOUND_S,
    Peer,
    VirtualClock,
    config,
    enter,
    is_open,
    simulated,
    start_daemon,
    status,
    until,
)

# Start


async def test_a_url_is_announced_for_each_listener_and_port(autojump_clock: MockClock, tmp_path: Path) -> None:
    announced: list[Url] = []
    settings = parse(
        {
            "server": {"listen": ["lpt://127.0.0.1:0", "lpt://127.0.0.2:0"]},
            "port": [{"name": "LPT1"}, {"name": "LPT2"}],
        }
    )
    daemon = Daemon(settings, announce=announced.append, clock=VirtualClock())
    async with trio.open_nursery() as nursery:
        await nursery.start(daemon.run)
        assert [(url.host, url.port_name) for url in announced] == [
            ("127.0.0.1", "LPT1"),
            ("127.0.0.1", "LPT2"),
            ("127.0.0.2", "LPT1"),
            ("127.0.0.2", "LPT2"),
        ]
        for url in announced:
            socket.create_connection((url.host, url.tcp_port)).close()
        daemon.stop()


async def test_a_listener_that_cannot_be_opened_stops_the_start_and_leaves_nothing(
    autojump_clock: MockClock, bound: list[socket.socket]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"lpt://127.0.0.1:{taken.getsockname()[1]}"
        settings = parse({"server": {"listen": ["lpt://127.0.0.2:0", url]}})
        announced: list[Url] = []
        daemon = Daemon(settings, announce=announced.append, clock=VirtualClock())
        with pytest.RaisesGroup(ListenError, flatten_subgroups=True):
            await daemon.run()
        assert announced == []
        assert simulated(daemon).fileno() == -1
        assert [each.fileno() for each in bound] == [-1]


async def test_semantic_10_the_lines_are_safe_when_the_daemon_starts(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    daemon = await start_daemon(nursery, port=[{"safe_data": 0x5A, "safe_control": 0x03}])
    assert simulated(daemon).read_data() == 0x5A
    assert simulated(daemon).read_control() == 0x03


async def test_semantic_09_a_port_that_is_gone_at_the_start_is_absent_and_the_daemon_serves(
    nursery: trio.Nursery, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, errors_logged: list[str]
) -> None:
    def fail(port: SimulatedPort, enable: bool) -> None:
        raise PortGoneError("unplugged")

    monkeypatch.setattr(SimulatedPort, "set_interrupt_enable", fail)
    daemon = await start_daemon(nursery)
    await wait_all_tasks_blocked()
    peer = await enter(daemon)
    assert await peer.status_of(peer.allocate()) == "STATUS_DEVICE_NOT_CONNECTED"
    assert errors_logged == ["port LPT1: unplugged; it is being removed", "port LPT1 is gone"]
    errors_logged.clear()


async def test_a_connection_that_is_gone_when_it_is_accepted_is_dropped(
    daemon: Daemon, autojump_clock: MockClock
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        accepted, _ = listener.accept()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        await trio.lowlevel.wait_readable(accepted)  # the reset has come
        daemon._reception.receive(next(iter(daemon._listeners)), accepted)
    assert accepted.fileno() == -1
    assert daemon.sessions == set()


# Admission


def hashed(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


async def test_nothing_is_told_before_the_token_holds(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    tokens = [{"name": "a", "sha256": hashed("good")}, {"name": "b", "sha256": hashed("better")}]
    daemon = await start_daemon(nursery, token=tokens)
    for keys in ({}, {"token": "bad"}, {"token": ""}, {"port": "LPT9"}, {"token": hashed("good")}):
        peer = Peer(daemon)
        peer.send("hello", {"protocol": 1, **keys})
        reply, last = await peer.messages()
        assert reply[2] == [0xC0000022, "STATUS_ACCESS_DENIED", "token: missing or wrong"]
        assert last[1] == "closing"
        assert "LPT" not in last[2][0]
    for token in ("good", "better"):
        await enter(daemon, token=token)
    peer = Peer(daemon)
    peer.send("hello", {"protocol": 2, "token": "bad"})
    assert (await peer.messages())[0][2][1] == "STATUS_NOT_SUPPORTED", "checked in the order protocol, token, port"


async def test_the_port_may_be_left_out_only_where_there_is_one(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    daemon = await start_daemon(nursery, port=[{"name": "LPT1"}, {"name": "LPT2"}])
    peer = Peer(daemon)
    assert await peer.status_of(peer.send("hello", {"protocol": 1})) == "STATUS_NO_SUCH_DEVICE"
    assert not is_open(peer)
    for name in ("LPT1", "LPT2"):
        peer = Peer(daemon)
        assert (await peer.say_hello(port=name))["port"] == name


async def test_ports_have_each_their_own_queue_log_and_registrations(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    ports = [{"name": name, "enable_connect_interrupt": True} for name in ("LPT1", "LPT2")]
    daemon = await start_daemon(nursery, port=ports)
    one, two = await enter(daemon, port="LPT1"), await enter(daemon, port="LPT2")
    for peer in (one, two):
        await peer.result(peer.allocate())
        await peer.result(peer.connect_interrupt())
    simulated(daemon, "LPT1").raise_interrupt()
    assert [message[1] for message in await one.messages()] == ["interrupt"]
    assert await two.messages() == []
    assert status(daemon, "LPT1")["interrupts"]["stream"] != status(daemon, "LPT2")["interrupts"]["stream"]
    assert status(daemon, "LPT1")["sessions"] == status(daemon, "LPT2")["sessions"] == 1


async def test_error_row_refused_by_the_limit_of_sessions(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    daemon = await start_daemon(nursery, limits={"max_sessions": 2})
    one, _ = await enter(daemon), await enter(daemon)
    third = Peer(daemon)
    assert await third.status_of(third.send("hello", {"protocol": 1})) == "STATUS_INSUFFICIENT_RESOURCES"
    assert is_open(third), "the conversation goes on"
    one.stream.end()
    await wait_all_tasks_blocked()
    await third.say_hello()


async def test_error_row_refused_by_the_limit_of_waiters(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    daemon = await start_daemon(nursery, limits={"max_waiters": 1})
    owner, waiter, third = [await enter(daemon) for _ in range(3)]
    await owner.result(owner.allocate())
    waiter.allocate()
    await wait_all_tasks_blocked()
    assert await third.status_of(third.allocate()) == "STATUS_INSUFFICIENT_RESOURCES"


async def test_error_row_refused_by_the_limit_of_pending_requests(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    daemon = await start_daemon(nursery, limits={"max_pending_requests": 3})
    owner = await enter(daemon)
    await owner.result(owner.allocate())
    owner.pulse(1, 0, 1000)
    writes = [owner.control(Ioctl.WRITE_PORT_UCHAR, b"\x00\x01") for _ in range(4)]
    refused = [message for message in await owner.messages() if message[0] == 1]
    assert [(message[1], message[2][1]) for message in refused] == [
        (msgid, "STATUS_INSUFFICIENT_RESOURCES") for msgid in writes[2:]
    ]


# Grants


async def test_grants_grow_across_restarts_though_the_clock_goes_back(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    grants = []
    for start in range(3):
        clock = VirtualClock()
        clock.realtime_ns = lambda start=start: 1_700_000_000 * 10**9 - start * 10**15  # type: ignore[method-assign,misc]
        settings = parse({"server": {"listen": ["lpt://127.0.0.1:0"], "state_directory": str(tmp_path)}})
        daemon = Daemon(settings, clock=clock)
        async with trio.open_nursery() as nursery:
            await nursery.start(daemon.run)
            peer = await enter(daemon)
            for _ in range(3):
                _, output = await peer.result(peer.control(Ioctl.PARALLEL_PORT_ALLOCATE, b"", 8))
                grants.append(int.from_bytes(output, "little"))
                await peer.result(peer.free())
            peer.stream.end()
            daemon.stop()
    assert grants == sorted(set(grants))
    assert grants[-1] < 2**53


async def test_the_ledger_is_kept_while_the_daemon_runs(
    nursery: trio.Nursery, autojump_clock: MockClock, tmp_path: Path
) -> None:
    daemon = await start_daemon(nursery, server={"state_directory": str(tmp_path)})
    noted = int((tmp_path / "last-grant-LPT1").read_text())
    daemon.workers["LPT1"].driver.ownership.grant = noted
    await trio.sleep(61)
    await until(lambda: int((tmp_path / "last-grant-LPT1").read_text()) > noted)


async def test_a_ledger_that_hangs_holds_up_nobody(
    nursery: trio.Nursery, autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = await start_daemon(nursery, server={"state_directory": str(tmp_path)})
    is_over, has_begun = threading.Event(), threading.Event()

    def hang(ledger: GrantLedger, grant: int) -> None:
        has_begun.set()
        is_over.wait(BOUND_S)

    monkeypatch.setattr(GrantLedger, "keep", hang)
    await trio.sleep(61)
    await until(has_begun.is_set)
    peer = await enter(daemon)
    assert await peer.result(peer.send("ping"))
    assert not is_over.is_set()
    is_over.set()


async def test_the_note_is_kept_where_systemd_says_unless_the_configuration_says_otherwise(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    given, configured = tmp_path / "given", tmp_path / "configured"
    given.mkdir()
    configured.mkdir()
    for directory, keys in ((given, {}), (configured, {"state_directory": str(configured)})):
        settings = config(server={"listen": ["lpt://127.0.0.1:0"], **keys})
        daemon = Daemon(settings, clock=VirtualClock(), handover=Handover(state_directory=given))
        async with trio.open_nursery() as nursery:
            await nursery.start(daemon.run)
            daemon.stop()
        assert sorted(os.listdir(directory)) == ["audit.jsonl", "last-grant-LPT1"]


# Logging


async def test_what_a_port_s_tasks_log_is_about_that_port(
    nursery: trio.Nursery, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, errors_logged: list[str]
) -> None:
    def fail(port: SimulatedPort, enable: bool) -> None:
        raise PortGoneError("unplugged")

    about: set[tuple[str | None, bool]] = set()

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            log._add_port(record)
            about.add((getattr(record, "port", None), "session" in record.getMessage()))

    handler = Handler(logging.INFO)
    logger = logging.getLogger("lpt_service")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        monkeypatch.setattr(SimulatedPort, "set_interrupt_enable", fail)
        daemon = await start_daemon(nursery, port=[{"name": "LPT7"}])
        await wait_all_tasks_blocked()
        Peer(daemon).stream.feed(b"\x94")
        await wait_all_tasks_blocked()
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
    assert about == {("LPT7", False), (None, True)}
    errors_logged.clear()


# Stop


async def test_stop_tells_everybody_in_order(autojump_clock: MockClock) -> None:
    """The device is quiet, the log marked and delivered, requests ended, `closing` last, then the end of the stream."""
    journal: list[str] = []
    daemon = Daemon(config(port=[{"enable_connect_interrupt": True, "safe_data": 0x11}]), clock=VirtualClock())
    async with trio.open_nursery() as nursery:
        await nursery.start(daemon.run)
        port = simulated(daemon)
        owner, waiter, listener, stranger = await enter(daemon), await enter(daemon), await enter(daemon), Peer(daemon)
        await owner.result(owner.allocate())
        pulse = owner.pulse(0xFF, 0xEE, 5_000_000)
        waiting = waiter.allocate()
        await listener.result(listener.connect_interrupt())
        await owner.messages()
        await waiter.messages()
        port.raise_interrupt(3)
        for name in ("set_interrupt_enable", "write_data"):
            note_calls(journal, port, name)
        daemon.stop()
        heard = await listener.messages()
    assert journal[-1] == "write_data(17)"
    assert "set_interrupt_enable(False)" in journal
    assert [(message[1], message[2][-1]) for message in heard] == [
        ("interrupt", 0),
        ("interrupt", 4),
        ("closing", "the daemon is stopping"),
    ]
    assert [message[:2] for message in owner.read()] == [[1, pulse], [2, "closing"]]
    assert [message[:2] for message in waiter.read()] == [[1, waiting], [2, "closing"]]
    assert [message[:2] for message in stranger.read()] == [[2, "closing"]]
    for peer in (owner, waiter, listener, stranger):
        assert peer.stream.is_finished
        assert peer.stream.is_closed


def note_calls(journal: list[str], port: Any, name: str) -> None:
    call = getattr(port, name)

    def noting(value: Any) -> Any:
        journal.append(f"{name}({value})")
        return call(value)

    setattr(port, name, noting)


async def test_stop_is_immediate_when_nobody_is_there(autojump_clock: MockClock) -> None:
    daemon = Daemon(config(), clock=VirtualClock())
    async with trio.open_nursery() as nursery:
        await nursery.start(daemon.run)
        daemon.stop()
        daemon.stop()
    assert trio.current_time() == 0
    assert simulated(daemon).fileno() == -1


async def test_stop_leaves_by_its_deadline_though_a_client_reads_nothing(autojump_clock: MockClock) -> None:
    settings = parse({"server": {"listen": ["lpt://127.0.0.1:0"], "stop_timeout_s": 0.5}})
    daemon = Daemon(settings, clock=VirtualClock())
    async with trio.open_nursery() as nursery:
        await nursery.start(daemon.run)
        deaf, good = await enter(daemon, room=1), await enter(daemon)
        for _ in range(100):
            deaf.send("ping")
        await wait_all_tasks_blocked()
        daemon.stop()
        assert (await good.messages())[-1][1] == "closing"
    assert trio.current_time() == pytest.approx(0.5)
    assert deaf.stream.is_closed


async def test_stop_delivers_the_log_to_a_slow_listener(autojump_clock: MockClock) -> None:
    daemon = Daemon(config(port=[{"enable_connect_interrupt": True}]), clock=VirtualClock())
    heard: list[Any] = []
    async with trio.open_nursery() as nursery:
        await nursery.start(daemon.run)
        listener = await enter(daemon)
        await listener.result(listener.connect_interrupt())
        listener.stream.room = 100
        for _ in range(200):
            simulated(daemon).raise_interrupt()
            await wait_all_tasks_blocked()
        daemon.stop()
        while is_open(listener):
            heard += await listener.messages()
        heard += listener.read()
    assert sum(message[2][2] for message in heard if message[1] == "interrupt") == 200
    assert [message[1] for message in heard[-2:]] == ["interrupt", "closing"]


async def test_stop_closes_the_listeners_first(autojump_clock: MockClock, bound: list[socket.socket]) -> None:
    daemon = Daemon(config(), clock=VirtualClock())
    async with trio.open_nursery() as nursery:
        await nursery.start(daemon.run)
        peer = await enter(daemon, room=1)
        peer.send("ping")
        await wait_all_tasks_blocked()
        assert bound[0].fileno() > 0
        daemon.stop()
        await wait_all_tasks_blocked()
        assert is_open(peer)
        assert [each.fileno() for each in bound] == [-1]
        peer.stream.end()
        peer.stream.room = 1000


# Status


async def test_status_names_owner_waiters_and_registrations(daemon: Daemon, autojump_clock: MockClock) -> None:
    owner, waiter, listener = [await enter(daemon, client=name) for name in ("o", "w", "l")]
    await owner.result(owner.allocate())
    waiter.allocate()
    await wait_all_tasks_blocked()
    await listener.result(listener.connect_interrupt(deferred=9))
    await trio.sleep(1)
    report = await listener.result(listener.send("status"))
    assert report["uptime_ns"] == 1_000_000_000
    assert (report["protocol"], report["port"], report["kind"], report["state"]) == (1, "LPT1", "simulated", "ready")
    assert report["owner"]["client"] == "o"
    assert report["owner"]["peer"] == "memory"
    assert [(each["client"], each["position"]) for each in report["waiters"]] == [("w", 1)]
    assert [(each["client"], each["interrupt"], each["deferred"]) for each in report["registrations"]] == [
        ("l", True, True)
    ]
    assert (report["waiting"], report["registered"], report["sessions"]) == (1, 1, 3)
    assert report["counters"]["grants"] == 1


async def test_status_counts_strays_that_nobody_has_looked_at(daemon: Daemon, autojump_clock: MockClock) -> None:
    port = simulated(daemon)
    port.set_interrupt_enable(True)
    port.raise_interrupt(4)
    assert status(daemon)["interrupts"]["stray"] == 4
    assert status(daemon)["interrupts"]["generated"] == 0


async def test_a_stop_does_not_wait_for_a_name_that_is_looked_up(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_up = trio.Event()

    async def never(*_: object, **__: object) -> None:
        looked_up.set()
        await trio.sleep_forever()

    monkeypatch.setattr(trio.socket, "getaddrinfo", never)
    daemon = Daemon(
        config(server={"listen": [{"url": "lpt://slow.example:0", "insecure": True}]}), clock=VirtualClock()
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(daemon.run)
        await looked_up.wait()
        daemon.stop()
    assert trio.current_time() == 0
