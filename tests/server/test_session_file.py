"""Sessions across a restart of the daemon: what the file says, what it does not, and who believes it."""

from __future__ import annotations

import json
import logging
import os
import stat
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from lpt_service.protocol.ioctl import Ioctl
from lpt_service.protocol.messages import KIND_STOPPED, KIND_UNHEARD
from lpt_service.server import daemon as daemon_module
from lpt_service.server import session_file
from lpt_service.server.daemon import Daemon
from lpt_service.server.identity import Identity, Origin
from tests.server.fakes import BOUND_S, ROOT, closing, config, routine, simulated, status
from tests.server.resuming import GRACE_S, Client, Ear, at, back, come, graceful, interrupt, owner_of, parked

SAFE = 0x5A
USER = Origin("uid 7 pid 7", "user 7", Identity(uid=7, gids=frozenset((7, 8))))


@asynccontextmanager
async def running(directory: Path, **keys: Any) -> AsyncIterator[Daemon]:
    """A daemon with this state directory, that has stopped at the end."""
    async with trio.open_nursery() as nursery:
        keys = {"port": {"safe_data": SAFE, "enable_connect_interrupt": True, "grace_s": GRACE_S}, **keys}
        daemon = await graceful(nursery, server={"state_directory": str(directory)}, **keys)
        yield daemon
        await stop(daemon)
        nursery.cancel_scope.cancel()


async def stop(daemon: Daemon) -> None:
    daemon.stop()
    await wait_all_tasks_blocked()


def file_of(directory: Path) -> Path:
    return directory / session_file.FILE_NAME


async def scene(daemon: Daemon) -> tuple[list[Client], int, list[int]]:
    """An owner, two who wait, one who listens: the clients, the grant, the requests that wait."""
    clients = [await come(daemon, USER, client=name) for name in ("owner", "first", "second", "listener")]
    owner, first, second, listener = clients
    grant = await owner.own()
    waits = [await client.wait_for_port() for client in (first, second)]
    for key in (routine(5), routine(0, 9), routine(2)):
        await listener.result(listener.control(Ioctl.PARALLEL_CONNECT_INTERRUPT, key, 32))
    return clients, grant, waits


# What outlives it


@pytest.mark.parametrize("is_lost_before", [True, False])
async def test_everything_is_as_it_was(tmp_path: Path, autojump_clock: MockClock, is_lost_before: bool) -> None:
    async with running(tmp_path) as daemon:
        lost, grant, waits = await scene(daemon)
        if is_lost_before:
            for client in lost:
                await client.lose()
    assert file_of(tmp_path).exists()
    async with running(tmp_path) as daemon:
        assert not file_of(tmp_path).exists(), "a crash must not find it"
        assert owner_of(daemon) == lost[0].number
        fresh = await come(daemon)
        assert fresh.number > max(client.number for client in lost), "numbers do not collide"
        await fresh.wait_for_port()
        owner, first, second, listener = [await back(daemon, client, USER) for client in lost]
        assert [client.number for client in (owner, first, second, listener)] == [client.number for client in lost]
        assert owner.resumed == {"grant": grant, "position": None, "pending": [], "registrations": []}
        assert [client.resumed["position"] for client in (first, second)] == [1, 2]
        assert [client.resumed["pending"] for client in (first, second)] == [[waits[0]], [waits[1]]]
        assert listener.resumed["registrations"] == [routine(5), routine(0, 9), routine(2)]
        grants = [grant]
        for client, waiting in ((owner, waits[0]), (first, waits[1])):
            client.free()
            other = first if client is owner else second
            grants.append(int.from_bytes((await other.result(waiting))[1], "little"))
        assert grants == sorted(set(grants)), "later grants are larger"
        second.free()
        await wait_all_tasks_blocked()
        assert owner_of(daemon) == fresh.number


async def test_a_port_check_that_is_owed_is_told_by_the_next_daemon(tmp_path: Path, autojump_clock: MockClock) -> None:
    """The owner has lost the port by the pause, which ends with the daemon."""
    async with running(tmp_path) as daemon:
        owner, listener = await come(daemon, USER), await come(daemon, USER)
        await owner.own()
        await listener.result(listener.connect_interrupt(0, 9))
        daemon.workers["LPT1"].driver.pause("a new cable", 0)
        daemon.workers["LPT1"].carry_out()
    async with running(tmp_path) as daemon:
        listener = await back(daemon, listener, USER)
        assert listener.heard == [[2, "port_check", [9, 0]]]


async def test_a_drain_ends_with_the_daemon(tmp_path: Path, autojump_clock: MockClock) -> None:
    """It is there to restart: the next daemon grants, and a session that held nothing else is not kept."""
    async with running(tmp_path) as daemon:
        admins = [await come(daemon, ROOT), await come(daemon, ROOT)]
        await admins[0].own()
        for admin in admins:
            await admin.result(admin.send("drain", {"on": True}))
        await admins[1].lose()
        client = await come(daemon, USER)
        waiting = await client.wait_for_port()
    async with running(tmp_path) as daemon:
        assert not status(daemon)["draining"]
        assert parked(daemon) == 2
        owner, client = await back(daemon, admins[0], ROOT), await back(daemon, client, USER)
        assert (await back(daemon, admins[1], ROOT)).resumed is None
        await owner.result(owner.free())
        await client.result(waiting)


async def test_the_stop_says_closing_and_cancels_nothing_that_outlives_it(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with running(tmp_path) as daemon:
        clients, _, _ = await scene(daemon)
        await stop(daemon)
        for client in clients:
            messages = await client.messages()
            assert closing(messages) == "the daemon is stopping"
            assert [message for message in messages if message[0] == 1] == []


async def test_without_a_directory_nothing_outlives_it_and_requests_are_cancelled(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        daemon = await graceful(nursery)
        clients, _, waits = await scene(daemon)
        await stop(daemon)
        messages = await clients[1].messages()
        assert [message[2][1] for message in messages if message[:2] == [1, waits[0]]] == ["STATUS_CANCELLED"]
        nursery.cancel_scope.cancel()


async def test_who_has_said_goodbye_or_holds_nothing_is_not_in_it(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with running(tmp_path) as daemon:
        owner, idle = await come(daemon), await come(daemon)
        await owner.own()
        owner.stream.feed(b"\x93\x02\xa3bye\x90")
        await wait_all_tasks_blocked()
    assert not file_of(tmp_path).exists()
    async with running(tmp_path) as daemon:
        assert (owner_of(daemon), parked(daemon)) == (None, 0)
        assert (await back(daemon, idle)).resumed is None


async def test_grace_runs_anew_and_then_all_is_released(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with running(tmp_path) as daemon:
        lost, _, _ = await scene(daemon)
        await lost[0].lose()
        await trio.sleep(GRACE_S - 1)
    async with running(tmp_path) as daemon:
        await trio.sleep(GRACE_S - 0.5)
        assert owner_of(daemon) == lost[0].number
        await trio.sleep(1)
        assert (owner_of(daemon), parked(daemon), len(daemon.tickets)) == (None, 0, 0)
        assert status(daemon)["registered"] == 0


async def test_it_may_be_restarted_several_times(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with running(tmp_path) as daemon:
        lost, grant, _ = await scene(daemon)
    for _ in range(3):
        async with running(tmp_path) as daemon:
            assert parked(daemon) == 4
    async with running(tmp_path) as daemon:
        assert (await back(daemon, lost[0], USER)).resumed["grant"] == grant


async def test_the_secret_is_for_one_use_and_one_identity_still(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with running(tmp_path) as daemon:
        lost, _, _ = await scene(daemon)
    async with running(tmp_path) as daemon:
        assert (await back(daemon, lost[0])).resumed is None
        assert (await back(daemon, lost[0], USER)).resumed
        assert (await back(daemon, lost[0], USER)).resumed is None


async def test_the_lines_are_made_safe_at_the_stop_and_at_the_start(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with running(tmp_path) as daemon:
        owner = await come(daemon)
        await owner.own()
        await owner.result(owner.control(Ioctl.WRITE_PORT_UCHAR, b"\x00\xff", 8))
        port = simulated(daemon)
        await stop(daemon)
        assert port._data == SAFE
    async with running(tmp_path) as daemon:
        assert simulated(daemon).read_data() == SAFE
        assert owner_of(daemon) == owner.number


async def test_listeners_hear_the_end_of_one_log_and_the_other_from_its_beginning(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with running(tmp_path) as daemon:
        client = await come(daemon)
        client.connect_interrupt()
        await wait_all_tasks_blocked()
        await interrupt(daemon, 2)
        await stop(daemon)
        ear = Ear().hear(await client.messages())
        assert ear.received == 2
        assert ear.kinds[-1] == KIND_STOPPED
    async with running(tmp_path) as daemon:
        await interrupt(daemon, 3)
        again = await back(daemon, client, **at(client.welcome["stream"], ear.next_seq))
        assert again.welcome["stream"] != client.welcome["stream"]
        assert again.heard[0] == [2, "interrupt_sync", ["restarted", 0, None]]
        heard = Ear().hear(again.heard)
        assert heard.kinds[0] == KIND_UNHEARD
        assert heard.received == 3
        await again.lose()
        await interrupt(daemon)
        last = await back(daemon, again, **at(again.welcome["stream"], heard.next_seq))
        assert heard.hear(last.heard).received == 4
        assert heard.syncs[-1] == ["resumed", 3, 0], "the other log is the one it knows by now"


async def test_who_does_not_say_where_it_is_is_told_of_the_restart_too(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with running(tmp_path) as daemon:
        client = await come(daemon)
        await client.result(client.connect_interrupt())
    async with running(tmp_path) as daemon:
        again = await back(daemon, client)
        assert again.heard[0] == [2, "interrupt_sync", ["restarted", 0, None]]
        last = await back(daemon, again)
        assert last.heard[0] == [2, "interrupt_sync", ["resumed", 0, 0]]


async def test_only_what_is_wanted_is_heard_after_a_restart(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with running(tmp_path) as daemon:
        client = await come(daemon, notifications=["closing"])
        await client.result(client.connect_interrupt())
    async with running(tmp_path) as daemon:
        again = await back(daemon, client, notifications=["closing"])
        await interrupt(daemon)
        assert again.heard + await again.messages() == []


async def test_sessions_of_a_port_that_is_gone_or_has_no_grace_any_more_are_dropped(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    for port in ({"name": "B"}, {"grace_s": 0}):
        async with running(tmp_path) as daemon:
            client = await come(daemon)
            await client.own()
        async with running(tmp_path, port=port) as daemon:
            assert sum(len(worker.parking) for worker in daemon.workers.values()) == 0
            fresh = await come(daemon, resume=client.welcome["resume"])
            assert fresh.resumed is None
            assert fresh.number > client.number


async def test_where_interrupts_may_not_be_connected_any_more_nobody_is(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with running(tmp_path) as daemon:
        lost, grant, _ = await scene(daemon)
    async with running(tmp_path, port={"enable_connect_interrupt": False}) as daemon:
        assert not status(daemon)["interrupts"]["connected"]
        assert (await back(daemon, lost[3], USER)).resumed["registrations"] == []
        assert (await back(daemon, lost[0], USER)).resumed["grant"] == grant


async def test_those_of_one_address_count_after_a_restart_too(tmp_path: Path, autojump_clock: MockClock) -> None:
    here = Origin("10.0.0.1:1", "10.0.0.1")
    async with running(tmp_path) as daemon:
        client = await come(daemon, here)
        await client.own()
    async with running(tmp_path, limits={"max_connections_per_address": 1}) as daemon:
        fresh = Client(daemon, origin=here)
        assert await fresh.status_of(fresh.send("hello", {"protocol": 1})) == "STATUS_INSUFFICIENT_RESOURCES"
        await fresh.lose()
        assert (await back(daemon, client, here)).resumed


async def test_a_start_that_fails_leaves_the_file_to_the_next(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with running(tmp_path) as daemon:
        client = await come(daemon)
        grant = await client.own()
    there = {"listen": ["lpt+unix:///nowhere/at/all/lptd.sock"], "state_directory": str(tmp_path)}
    with pytest.raises(ExceptionGroup):
        await Daemon(config(server=there)).run()
    async with running(tmp_path) as daemon:
        assert (await back(daemon, client)).resumed["grant"] == grant


# The file itself


async def test_only_the_daemon_can_read_it_and_no_secret_is_in_it(
    tmp_path: Path, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "lpt_service")
    before = file_of(tmp_path)
    before.write_text("{")
    before.chmod(0o644)
    async with running(tmp_path) as daemon:
        before.write_text("{")
        before.chmod(0o644)
        clients, _, _ = await scene(daemon)
        await clients[0].lose()
        again = await back(daemon, clients[0], USER)
    assert stat.S_IMODE(file_of(tmp_path).stat().st_mode) == 0o600
    text = file_of(tmp_path).read_text()
    assert len(json.loads(text)["ports"]["LPT1"]["sessions"]) == 4
    for client in (*clients, again):
        secret = client.welcome["resume"]
        assert secret not in text + caplog.text
        assert len(secret) == 32


async def test_it_is_not_written_where_a_link_points(
    tmp_path: Path, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    target = tmp_path / "target"
    target.write_text("precious")
    async with running(tmp_path) as daemon:
        await scene(daemon)
        file_of(tmp_path).symlink_to(target)
    assert target.read_text() == "precious"
    assert "sessions do not outlive this stop" in caplog.text


@pytest.mark.parametrize("trap", ["a link", "a pipe", "somebody else's"])
def test_what_somebody_else_has_put_there_is_neither_believed_nor_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, trap: str
) -> None:
    path, target = file_of(tmp_path), tmp_path / "target"
    target.write_text(json.dumps(saved()))
    if trap == "a link":
        path.symlink_to(target)
    elif trap == "a pipe":
        os.mkfifo(path)
        session_file.write(tmp_path, {})
        assert "sessions do not outlive this stop" in caplog.text
    else:
        target.rename(path)
        monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    assert session_file.take(tmp_path) == {}
    assert "sessions begin anew" in caplog.text


def saved(**changes: Any) -> dict[str, Any]:
    """A good file's contents, with changes to its port."""
    session = {
        "session": 3,
        "context": 9,
        "client": "c",
        "peer": "p",
        "host": "h",
        "digest": "0" * 64,
        "uid": None,
        "certificate": None,
        "token": None,
    }
    port = {
        "sessions": [session, {**session, "session": 4, "digest": "1" * 64}],
        "owner": {"session": 3, "grant": 5},
        "waiters": [{"session": 4, "msgid": 1, "output_length": 8}],
        "registrations": [{"session": 4, "structure": routine(1).hex()}],
    }
    return {"version": 1, "ports": {"LPT1": {**port, **changes}}}


WAITER = {"session": 4, "msgid": 1, "output_length": 8}
REGISTRATION = {"session": 4, "structure": routine(1).hex()}
SESSION = saved()["ports"]["LPT1"]["sessions"][0]
CHANGES: dict[str, dict[str, Any]] = {
    "a stranger owns": {"owner": {"session": 99, "grant": 5}},
    "a stranger waits": {"waiters": [{**WAITER, "session": 99}]},
    "a stranger listens": {"registrations": [{**REGISTRATION, "session": 99}]},
    "the owner waits": {"waiters": [{**WAITER, "session": 3}]},
    "one waits twice": {"waiters": [WAITER, {**WAITER, "msgid": 2}]},
    "connected twice": {"registrations": [REGISTRATION, REGISTRATION]},
    "half a structure": {"registrations": [{**REGISTRATION, "structure": "00"}]},
    "a grant too large": {"owner": {"session": 3, "grant": 1 << 64}},
    "a msgid too large": {"waiters": [{**WAITER, "msgid": 1 << 32}]},
    "a number too large": {"sessions": [{**SESSION, "session": 1 << 60}], "owner": None},
    "a number twice": {"sessions": [SESSION, SESSION, {**SESSION, "session": 4, "digest": "2" * 64}]},
    "a secret twice": {"sessions": [SESSION, {**SESSION, "session": 4}]},
    "a text for a number": {"owner": {"session": "3", "grant": 5}},
}
BAD = {
    "empty": b"",
    "no JSON": b"{",
    "no text": b"\xff\xfe\x00",
    "another thing": b"[]",
    "another version": json.dumps({**saved(), "version": 2}).encode(),
    "an unknown key": json.dumps({**saved(), "extra": 1}).encode(),
    "cut off": json.dumps(saved()).encode()[:-9],
    **{name: json.dumps(saved(**changes)).encode() for name, changes in CHANGES.items()},
}


def test_a_good_file_is_taken_once(tmp_path: Path) -> None:
    file_of(tmp_path).write_text(json.dumps(saved()))
    assert session_file.take(tmp_path)["LPT1"].owner == session_file.SavedOwner(session=3, grant=5)
    assert session_file.take(tmp_path) == {}


@pytest.mark.parametrize("content", BAD.values(), ids=BAD)
async def test_a_bad_file_is_told_of_once_and_nobody_believes_it(
    tmp_path: Path, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    file_of(tmp_path).write_bytes(content)
    async with running(tmp_path) as daemon:
        assert caplog.text.count("sessions begin anew") == 1
        assert (owner_of(daemon), parked(daemon)) == (None, 0)
        assert await (await come(daemon)).own()
        assert not file_of(tmp_path).exists()


def test_a_file_that_cannot_be_removed_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A later start would believe it again."""

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    file_of(tmp_path).write_text(json.dumps(saved()))
    monkeypatch.setattr(Path, "unlink", refuse)
    assert session_file.take(tmp_path) == {}
    assert "sessions begin anew" in caplog.text


async def test_a_disk_that_hangs_does_not_hold_up_the_stop(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, errors_logged: list[str]
) -> None:
    is_over = threading.Event()
    monkeypatch.setattr(session_file, "write", lambda directory, ports: is_over.wait(BOUND_S))
    monkeypatch.setattr(daemon_module, "SAVE_TIMEOUT_S", 0.01)
    async with running(tmp_path) as daemon:
        await scene(daemon)
    assert not is_over.is_set()
    assert errors_logged == ["the sessions that were to outlive this daemon were not saved within 0.01 s"]
    errors_logged.clear()
    is_over.set()
