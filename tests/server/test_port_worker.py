"""One port at work: timers, jobs, notices, interrupts, removal; on a virtual clock."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from lpt_service.port.simulated import SimulatedPort
from lpt_service.protocol.errors import PortError
from lpt_service.protocol.ioctl import Ioctl
from lpt_service.server.daemon import Daemon
from tests.server.fakes import START_NS, enter, is_open, simulated, start_daemon, status

MS = 1_000_000


def named(messages: list[Any], name: str) -> list[Any]:
    """The params of the notifications of a name."""
    return [message[2] for message in messages if message[:2] == [2, name]]


# Timers


async def test_a_waiting_request_times_out_at_its_time(daemon: Daemon, autojump_clock: MockClock) -> None:
    owner, one, two, three = [await enter(daemon) for _ in range(4)]
    await owner.result(owner.allocate())
    late = one.allocate(timeout_ms=5000)
    await wait_all_tasks_blocked()
    soon = two.allocate(timeout_ms=50)
    await wait_all_tasks_blocked()
    never = three.allocate()
    await trio.sleep(0.049)
    assert named(await two.messages(), "queued") == [[soon, 2]]
    await trio.sleep(0.002)
    assert await two.status_of(soon) == "STATUS_IO_TIMEOUT"
    await one.messages()
    await trio.sleep(4.94)
    assert await one.messages() == []
    await trio.sleep(0.02)
    assert await one.status_of(late) == "STATUS_IO_TIMEOUT"
    await trio.sleep(1000)
    assert status(daemon)["waiting"] == 1
    owner.free()
    assert await three.result(never) == [0, b""]


async def test_a_later_request_with_an_earlier_deadline_wakes_the_timer(
    daemon: Daemon, autojump_clock: MockClock
) -> None:
    owner = await enter(daemon)
    await owner.result(owner.allocate())
    waiters = [await enter(daemon) for _ in range(10)]
    started = trio.current_time()
    msgids = [peer.allocate(timeout_ms=1000 - 100 * place) for place, peer in enumerate(waiters)]
    for place in reversed(range(10)):
        await trio.sleep(started + (1000 - 100 * place) / 1000 + 0.001 - trio.current_time())
        assert await waiters[place].status_of(msgids[place]) == "STATUS_IO_TIMEOUT"


async def test_position_notices_come_at_most_ten_times_a_second(daemon: Daemon, autojump_clock: MockClock) -> None:
    owner, *waiters, last = [await enter(daemon) for _ in range(22)]
    await owner.result(owner.allocate())
    for peer in waiters:
        await peer.messages()
        peer.allocate()
        await wait_all_tasks_blocked()
    waiting = last.allocate()
    heard = [(trio.current_time(), *params) for params in named(await last.messages(), "queued")]
    for peer in waiters:
        peer.stream.end()
        await trio.sleep(0.01)
        heard += [(trio.current_time(), *params) for params in named(await last.messages(), "queued")]
    await trio.sleep(0.1)
    heard += [(trio.current_time(), *params) for params in named(await last.messages(), "queued")]
    assert heard[0][1:] == (waiting, 21)
    assert heard[-1][1:] == (waiting, 1)
    assert 3 <= len(heard) <= 5
    assert sorted((position for *_, position in heard), reverse=True) == [position for *_, position in heard]


async def test_a_long_queue_is_told_in_slices(daemon: Daemon, autojump_clock: MockClock) -> None:
    """More waiters than are sent to in one turn: each learns its new place, and others run between."""
    owner, *waiters = [await enter(daemon) for _ in range(101)]
    await owner.result(owner.allocate())
    msgids = []
    for peer in waiters:
        msgids.append(peer.allocate())
        await wait_all_tasks_blocked()
    await trio.sleep(0.2)
    for peer in waiters:
        await peer.messages()
    owner.free()
    await trio.sleep(0.2)
    for place, (msgid, peer) in enumerate(zip(msgids, waiters, strict=True)):
        messages = await peer.messages()
        if place == 0:
            assert [message for message in messages if message[0] == 1] == [[1, msgid, None, [0, b""]]]
            assert named(messages, "waiters") == [[99]]
        else:
            assert named(messages, "queued") == [[msgid, place]]


async def test_linger_ends_after_its_time(daemon: Daemon, autojump_clock: MockClock) -> None:
    """Semantic 4: the source stays connected for `interrupt_linger_s` when the last listening session vanishes."""
    peer = await enter(daemon)
    await peer.result(peer.connect_interrupt())
    peer.stream.end()
    await trio.sleep(29.9)
    assert simulated(daemon).read_control() & 0x10
    simulated(daemon).raise_interrupt()
    await wait_all_tasks_blocked()
    assert status(daemon)["interrupts"]["generated"] == 1
    await trio.sleep(0.2)
    assert not simulated(daemon).read_control() & 0x10
    assert not status(daemon)["interrupts"]["connected"]


# Jobs


async def test_semantic_11_a_pulse_lasts_as_long_as_asked(daemon: Daemon, autojump_clock: MockClock) -> None:
    owner = await enter(daemon)
    await owner.result(owner.allocate())
    began_ns = daemon.clock.monotonic_ns()
    pulse = owner.pulse(0x55, 0xAA, 10_000_000)
    await wait_all_tasks_blocked()
    assert simulated(daemon).read_data() == 0x55
    await trio.sleep(9.999)
    assert simulated(daemon).read_data() == 0x55
    assert await owner.messages() == []
    await trio.sleep(0.002)
    assert simulated(daemon).read_data() == 0xAA
    information, output = await owner.result(pulse)
    edges = [int.from_bytes(output[i : i + 8], "little") for i in (0, 8)]
    assert information == 16
    assert edges == [began_ns, began_ns + 10_000_000_000]


async def test_semantic_11_the_owner_waits_behind_its_job_and_nobody_else(
    daemon: Daemon, autojump_clock: MockClock
) -> None:
    owner, other = await enter(daemon), await enter(daemon)
    await owner.result(owner.allocate())
    first, second = owner.pulse(1, 2, 1000), owner.pulse(3, 4, 1000)
    write = owner.control(Ioctl.WRITE_PORT_UCHAR, b"\x00\x63")
    ping = owner.send("ping")
    assert [message[1] for message in await owner.messages()] == [ping]
    assert await other.result(other.control(Ioctl.READ_PORT_UCHAR, b"\x00", 1)) == [1, b"\x01"]
    await trio.sleep(0.0011)
    assert [message[1] for message in await owner.messages()] == [first]
    assert await other.result(other.control(Ioctl.READ_PORT_UCHAR, b"\x00", 1)) == [1, b"\x03"]
    await trio.sleep(0.0011)
    assert [message[1] for message in await owner.messages()] == [second, write]
    assert simulated(daemon).read_data() == 0x63


async def test_semantic_11_a_cancelled_job_ends_at_once_and_the_next_begins(
    daemon: Daemon, autojump_clock: MockClock
) -> None:
    owner = await enter(daemon)
    await owner.result(owner.allocate())
    tasks = trio.lowlevel.current_statistics().tasks_living
    first, second = owner.pulse(1, 2, 5_000_000), owner.pulse(3, 4, 1000)
    await wait_all_tasks_blocked()
    owner.stream.feed(b"\x93\x02\xa6cancel\x91" + bytes((first,)))
    assert await owner.status_of(first) == "STATUS_CANCELLED"
    assert simulated(daemon).read_data() == 3
    await trio.sleep(0.0011)
    assert (await owner.result(second))[0] == 16
    assert trio.lowlevel.current_statistics().tasks_living == tasks, "the cut job is still there"
    await trio.sleep(10)
    assert simulated(daemon).read_data() == 4, "the cut job went on"
    assert await owner.messages() == []


async def test_semantic_11_an_owner_that_dies_in_a_job(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """The job is cut short and ended properly, then the safe state, then the next owner."""
    daemon = await start_daemon(nursery, port=[{"safe_data": 0x0F}])
    owner, waiter = await enter(daemon), await enter(daemon)
    await owner.result(owner.allocate())
    owner.pulse(1, 2, 5_000_000)
    waiting = waiter.allocate()
    await wait_all_tasks_blocked()
    written: list[int] = []
    port = simulated(daemon)
    write_data = port.write_data

    def noting(value: int) -> Any:
        written.append(value)
        return write_data(value)

    port.write_data = noting
    owner.stream.end()
    assert await waiter.result(waiting) == [0, b""]
    assert written == [2, 0x0F]
    await waiter.result(waiter.control(Ioctl.WRITE_PORT_UCHAR, b"\x00\x77"))
    await trio.sleep(10)
    assert port.read_data() == 0x77


# Interrupts


async def test_semantic_05_the_reply_to_connect_precedes_every_event(daemon: Daemon, autojump_clock: MockClock) -> None:
    first, second = await enter(daemon), await enter(daemon)
    await first.result(first.connect_interrupt())
    connect = second.connect_interrupt()
    simulated(daemon).raise_interrupt()
    messages = await second.messages()
    assert messages[0][:2] == [1, connect]
    assert messages[1][:2] == [2, "interrupt_sync"]
    assert [message[1] for message in messages[2:]] in ([], ["interrupt"])


async def test_interrupts_reach_every_listener_of_a_crowd(daemon: Daemon, autojump_clock: MockClock) -> None:
    peers = [await enter(daemon) for _ in range(40)]
    for peer in peers:
        await peer.result(peer.connect_interrupt())
    for _ in range(5):
        simulated(daemon).raise_interrupt(3)
        await trio.sleep(0.01)
    for peer in peers:
        heard = named(await peer.messages(), "interrupt")
        assert [(seq, count) for seq, _, count, *_ in heard] == [(0, 3), (3, 3), (6, 3), (9, 3), (12, 3)]


async def test_one_frame_a_session_however_many_routines(daemon: Daemon, autojump_clock: MockClock) -> None:
    peer = await enter(daemon)
    for isr in (1, 2, 3):
        await peer.result(peer.connect_interrupt(isr))
    simulated(daemon).raise_interrupt()
    assert len(named(await peer.messages(), "interrupt")) == 1


async def test_semantic_08_a_storm_is_masked_and_unmasked(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    port = {"enable_connect_interrupt": True, "max_interrupt_rate_hz": 100}
    daemon = await start_daemon(nursery, port=[port])
    peer = await enter(daemon)
    await peer.result(peer.connect_interrupt())
    simulated(daemon).raise_interrupt(101)
    kinds = [params[5] for params in named(await peer.messages(), "interrupt")]
    assert kinds == [0, 2]
    simulated(daemon).raise_interrupt(7)  # masked: the device's interrupt is off
    await trio.sleep(1.01)
    simulated(daemon).raise_interrupt(5)
    heard = named(await peer.messages(), "interrupt")
    assert [(params[0], params[2], params[5]) for params in heard] == [(101, 0, 3), (101, 5, 0)]


# Removal


async def test_semantic_09_removal(
    daemon: Daemon, autojump_clock: MockClock, errors_logged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Waiters end, the owner is told, registrations end with the mark; the session goes on."""
    gone = simulated(daemon)
    monkeypatch.setattr(SimulatedPort, "__init__", missing)
    owner, waiter, listener, slow = [await enter(daemon) for _ in range(4)]
    await owner.result(owner.allocate())
    await listener.result(listener.connect_interrupt())
    await slow.result(slow.connect_interrupt())
    slow.stream.room = 1
    waiting = waiter.allocate()
    await waiter.messages()
    await owner.messages()
    simulated(daemon).unplug()

    heard = named(await listener.messages(), "interrupt")
    assert [params[5] for params in heard] == [4]
    assert await waiter.status_of(waiting) == "STATUS_DELETE_PENDING"
    assert [message[1] for message in await owner.messages()] == ["revoked"]
    assert await waiter.status_of(waiter.allocate()) == "STATUS_DELETE_PENDING"
    assert status(daemon)["state"] == "removing"
    slow.stream.room = 1 << 30
    assert [params[5] for params in named(await slow.messages(), "interrupt")] == [4]

    await trio.sleep(1.1)
    assert await waiter.status_of(waiter.allocate()) == "STATUS_DEVICE_NOT_CONNECTED"
    assert await waiter.result(waiter.send("ping"))
    report = await waiter.result(waiter.send("status"))
    assert (report["state"], report["owner"], report["waiting"], report["registered"]) == ("absent", None, 0, 0)
    assert report["why_absent"] == "no such device"
    assert gone.fileno() == -1, "the device was not given back"
    assert is_open(owner)
    newcomer = await enter(daemon)
    assert await newcomer.status_of(newcomer.allocate()) == "STATUS_DEVICE_NOT_CONNECTED"
    assert errors_logged == [
        "port LPT1: the simulated port was unplugged; it is being removed",
        "port LPT1 is gone",
        "port LPT1 is absent: no such device",
    ]
    errors_logged.clear()


def missing(self: SimulatedPort, **_options: Any) -> None:
    """A port whose device is not there."""
    raise PortError("no such device")


async def test_semantic_09_a_port_that_comes_back_serves_the_same_sessions(
    daemon: Daemon, autojump_clock: MockClock, errors_logged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The queue and the log go on; registrations ended with the port, and are made anew."""
    owner, listener = await enter(daemon), await enter(daemon)
    await owner.result(owner.allocate())
    before = await listener.result(listener.connect_interrupt())
    gone = simulated(daemon)
    gone.unplug()
    with monkeypatch.context() as patch:
        patch.setattr(SimulatedPort, "__init__", missing)
        await trio.sleep(5)
        assert status(daemon)["why_absent"] == "no such device"
    await trio.sleep(2)
    assert (status(daemon)["state"], status(daemon)["why_absent"]) == ("ready", None)
    assert simulated(daemon) is not gone
    await owner.messages()
    await owner.result(owner.allocate())
    await listener.messages()
    after = await listener.result(listener.connect_interrupt())
    assert after == before, "the log goes on, and nothing has been raised"
    simulated(daemon).raise_interrupt()
    assert [params[5] for params in named(await listener.messages(), "interrupt")] == [0]
    assert errors_logged.pop() == "port LPT1 is absent: no such device"
    assert len(errors_logged) == 2
    errors_logged.clear()


async def test_a_port_that_is_absent_at_the_start_comes_up_by_itself(
    nursery: trio.Nursery, autojump_clock: MockClock, errors_logged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(SimulatedPort, "__init__", missing)
        daemon = await start_daemon(nursery)
        peer = await enter(daemon)
        assert await peer.status_of(peer.allocate()) == "STATUS_DEVICE_NOT_CONNECTED"
        await trio.sleep(10)
        assert errors_logged == ["port LPT1 is absent: no such device"], "said once"
        errors_logged.clear()
    await trio.sleep(2)
    await peer.result(peer.allocate())


async def test_a_device_that_goes_while_nobody_listens_is_noticed(
    daemon: Daemon, autojump_clock: MockClock, errors_logged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = await enter(daemon)
    await owner.result(owner.allocate())
    monkeypatch.setattr(SimulatedPort, "__init__", missing)
    simulated(daemon).unplug()
    await trio.sleep(1.5)
    assert [message[1] for message in await owner.messages()] == ["revoked"]
    errors_logged.clear()


async def test_semantic_09_removal_does_not_wait_for_a_listener_that_does_not_read(
    daemon: Daemon, autojump_clock: MockClock, errors_logged: list[str]
) -> None:
    slow = await enter(daemon)
    await slow.result(slow.connect_interrupt())
    slow.stream.room = 1
    simulated(daemon).unplug()
    await trio.sleep(1.1)
    assert status(daemon)["state"] == "absent"
    errors_logged.clear()


async def test_semantic_09_removal_in_the_middle_of_a_pulse(
    daemon: Daemon, autojump_clock: MockClock, errors_logged: list[str]
) -> None:
    owner, other = await enter(daemon), await enter(daemon)
    await owner.result(owner.allocate())
    pulse = owner.pulse(1, 2, 1_000_000)
    behind = owner.control(Ioctl.WRITE_PORT_UCHAR, b"\x00\x00")
    await wait_all_tasks_blocked()
    simulated(daemon).unplug()
    await other.status_of(other.control(Ioctl.READ_PORT_UCHAR, b"\x00", 1))
    messages = await owner.messages()
    assert [(message[1], message[2][1]) for message in messages if message[0] == 1] == [
        (pulse, "STATUS_DELETE_PENDING"),
        (behind, "STATUS_DELETE_PENDING"),
    ]
    await trio.sleep(5)
    assert await owner.messages() == []
    errors_logged.clear()


# What a session leaves behind


async def test_semantic_02_nothing_is_left_of_a_session_that_has_ended(
    daemon: Daemon, autojump_clock: MockClock
) -> None:
    owner, waiter, listener = [await enter(daemon) for _ in range(3)]
    await owner.result(owner.allocate())
    waiter.allocate()
    await wait_all_tasks_blocked()
    await listener.result(listener.connect_interrupt(deferred=5))
    for peer in (waiter, listener, owner):
        peer.stream.end()
        await wait_all_tasks_blocked()
    left = status(daemon)
    assert (left["owner"], left["waiting"], left["registered"], left["sessions"]) == (None, 0, 0, 0)
    traces = [weakref.ref(peer.session) for peer in (owner, waiter, listener)]
    del owner, waiter, listener, peer
    await trio.sleep(100)
    gc.collect()
    assert [trace() for trace in traces] == [None] * 3


async def test_status_counts_what_former_sessions_lost(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    port = {"enable_connect_interrupt": True, "interrupt_log_frames": 16}
    daemon = await start_daemon(nursery, port=[port])
    peer = await enter(daemon)
    await peer.result(peer.connect_interrupt())
    peer.stream.room = 1
    for _ in range(100):
        simulated(daemon).raise_interrupt()
        await wait_all_tasks_blocked()
    peer.stream.room = 1 << 30
    lost = sum(params[2] for params in named(await peer.messages(), "interrupt_sync"))
    assert lost > 0
    peer.stream.end()
    await wait_all_tasks_blocked()
    assert status(daemon)["counters"]["lost"] == lost


async def test_contexts_differ_and_times_are_the_clock_s(daemon: Daemon, autojump_clock: MockClock) -> None:
    one, two = await enter(daemon), await enter(daemon)
    contexts = set()
    for peer in (one, two):
        _, output = await peer.result(peer.control(Ioctl.GET_PARALLEL_PORT_INFO, b"", 56))
        contexts.add(output[48:56])
    assert len(contexts) == 2
    await trio.sleep(3)
    assert (await one.result(one.send("status")))["monotonic_ns"] == START_NS + 3_000_000_000
