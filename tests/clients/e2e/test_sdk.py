"""The SDK against a real daemon: both clients, loss of the connection, restarts, the account of interrupts."""

# ruff: noqa: ASYNC110, PT012, SIM117 - another process is waited for; what is tested is how blocks end

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from typing import Any

import pytest
import trio

import lpt_client
from lpt_client import blocking
from lpt_client.events import Event, Interrupt, Mark, Reconnected, Sync
from lpt_client.trio_transport import OpenStream
from lpt_service.protocol.ioctl import STATUS_NACK
from lpt_service.protocol.url import Url
from tests.clients.blocking_harness import interrupt_main
from tests.clients.e2e.conftest import BOUND_S, Daemon

D3 = 0x08  # wired to nAck: its rising edge is an interrupt


async def test_registers_and_ownership(url: str) -> None:
    async with lpt_client.open_port(url, client="first") as first, lpt_client.open_port(url, client="other") as other:
        assert first.session.stream == other.session.stream
        with pytest.raises(lpt_client.AccessDenied):
            await first.write_data(1)
        async with first.allocated() as grant:
            written_ns = await first.write_data(D3, grant=grant)
            assert (await first.ping()).monotonic_ns > written_ns
            assert await other.read_data() == D3
            assert await other.read_status() & STATUS_NACK
            status = await other.status()
            assert status["owner"]["client"] == "first"
            assert status["owner"]["grant"] == grant
            with pytest.raises(lpt_client.TimedOut):
                await other.allocate(0.05)
            assert await other.try_allocate() is None
            with pytest.raises(lpt_client.AccessDenied):
                await first.write_data(0, grant=grant + 1)
            edges = await first.pulse(1, width_us=500)
            assert edges.second_ns - edges.first_ns >= 500_000
            control = await first.read_control()
            assert await first.frob_control(0x04, 0x00) == control & ~0x04
            await first.write_control(control)
        later = await other.try_allocate()
        assert later is not None
        assert later > grant
        with pytest.raises(lpt_client.InvalidDeviceState):
            await other.allocate()
        await other.free()


async def test_many_large_requests_at_once(url: str) -> None:
    """More than the kernel takes at once: the rest is sent when there is room, whole and in order."""
    async with lpt_client.open_port(url) as port:
        values: list[int] = []

        async def read() -> None:
            _, output = await port.ioctl(0x162040, bytes(60_000), 1)
            values.append(output[0])

        with trio.fail_after(BOUND_S):
            async with trio.open_nursery() as nursery:
                for _ in range(100):
                    nursery.start_soon(read)
        assert values == [0] * 100


async def test_the_queue_is_told(url: str) -> None:
    async with (
        lpt_client.open_port(url) as owner,
        lpt_client.open_port(url) as second,
        lpt_client.open_port(url) as third,
    ):
        places: list[tuple[str, int]] = []
        waiting: list[int] = []
        done: list[str] = []

        async def use(name: str, port: lpt_client.Port) -> None:
            async with port.allocated(on_queued=lambda place: places.append((name, place))):
                done.append(name)

        with trio.fail_after(BOUND_S):
            async with owner.allocated(on_waiters=waiting.append):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(use, "second", second)
                    while len(places) < 1:
                        await trio.sleep(0.01)
                    nursery.start_soon(use, "third", third)
                    while len(places) < 2 or 2 not in waiting:
                        await trio.sleep(0.01)
                    await owner.free()
        assert done == ["second", "third"]
        assert places[:2] == [("second", 1), ("third", 2)]


async def test_a_cancelled_wait_leaves_the_queue(url: str) -> None:
    async with lpt_client.open_port(url) as owner, lpt_client.open_port(url) as waiter:
        async with owner.allocated():
            with trio.move_on_after(0.05) as scope:
                await waiter.allocate()
            assert scope.cancelled_caught
            assert await owner.waiters() == 0
        assert (await owner.status())["owner"] is None


async def test_a_cancelled_pulse_is_cut_short(url: str) -> None:
    width_s = 10
    async with lpt_client.open_port(url) as port, port.allocated():
        for _ in range(3):  # one that is not cut lasts that long each time; a slow machine is not so slow
            began_s = trio.current_time()
            with trio.move_on_after(0.05):
                await port.pulse(0xFF, 0x00, width_us=width_s * 1_000_000)
            assert await port.read_data() == 0
            if trio.current_time() - began_s < width_s:
                break
        else:
            pytest.fail("it lasted to its end")


def test_an_interrupted_wait_leaves_the_queue(url: str) -> None:
    with blocking.open_port(url) as owner, blocking.open_port(url) as waiter, owner.allocated():

        def interrupt() -> None:
            while owner.waiters() < 1:
                time.sleep(0.01)
            interrupt_main()

        thread = threading.Thread(target=interrupt)
        with pytest.raises(KeyboardInterrupt):
            thread.start()
            waiter.allocate()
        thread.join()
        assert owner.waiters() == 0
        with pytest.raises(lpt_client.TimedOut):
            waiter.allocate(0)


def test_blocking_registers_and_ownership(url: str) -> None:
    with blocking.open_port(url) as port, blocking.open_port(url) as other:
        with port.allocated(timeout=5) as grant:
            port.write_data(0x55, grant=grant)
            assert other.read_data() == 0x55
            assert other.try_allocate() is None
            assert port.pulse(0xFF, 0, width_us=100).second_ns > 0
        assert other.try_allocate() is not None
        assert port.waiters() == 0
        assert port.pnp_info().PortName == 0
        assert port.more_port_info().InterruptMode == 1


async def test_interrupts_and_the_port_check(url: str) -> None:
    async with lpt_client.open_port(url) as port, lpt_client.open_port(url) as listener:
        heard: list[Interrupt] = []
        idle = trio.Event()
        async with (
            listener.connect_interrupt(lambda each, _: heard.append(each), deferred=lambda _: idle.set()) as interrupts,
            port.connect_interrupt() as own,
        ):
            async with port.allocated():
                for _ in range(20):
                    await port.pulse(D3, width_us=10)
            with trio.fail_after(BOUND_S):
                await idle.wait()
        assert sum(each.count for each in heard) == interrupts.received == 20
        assert interrupts.lost == interrupts.unknown_periods == 0
        assert own.buffered == 20, "the fence: what was raised before leaving has come"
        assert [each.seq async for each in own if isinstance(each, Interrupt)] == [each.seq for each in heard]


def test_blocking_interrupts(url: str) -> None:
    with blocking.open_port(url) as port, port.connect_interrupt() as interrupts:
        with port.allocated():
            for _ in range(5):
                port.pulse(D3, width_us=10)
        while interrupts.received < 5:
            assert interrupts.next(BOUND_S) is not None
        assert interrupts.next(0.05) is None
        assert interrupts.lost == 0


@pytest.mark.parametrize("how", ["trio", "blocking"])
async def test_the_account_holds_in_a_flood(how: str, url: str) -> None:
    """A port that pulses on its own would do; here two sessions do what they like while a slow one listens."""
    async with lpt_client.open_port(url) as port, port.allocated():
        if how == "trio":
            async with (
                lpt_client.open_port(url) as listener,
                listener.connect_interrupt(max_buffered_events=10) as slow,
            ):
                for _ in range(200):
                    await port.write_data(D3)
                    await port.write_data(0)
                end_seq = (await port.status())["interrupts"]["next_seq"]
            first_seq, received, buffered, lost = slow.first_seq, slow.received, slow.buffered, slow.lost
        else:

            def listen() -> tuple[int | None, int, int, int]:
                with blocking.open_port(url) as listener, listener.connect_interrupt(max_buffered_events=10) as slow:
                    trio.from_thread.run(flood)
                    listener.ping()
                return slow.first_seq, slow.received, slow.buffered, slow.lost

            async def flood() -> None:
                for _ in range(200):
                    await port.write_data(D3)
                    await port.write_data(0)

            first_seq, received, buffered, lost = await trio.to_thread.run_sync(listen)
            end_seq = (await port.status())["interrupts"]["next_seq"]
        assert first_seq is not None
        assert received == 0
        assert buffered >= 10, "ten events; one may stand for several interrupts"
        assert received + buffered + lost == end_seq - first_seq == 200


# Loss of the connection


def cuttable() -> tuple[OpenStream, list[trio.SocketStream]]:
    """Streams that the test can break; every one that was opened is listed."""
    streams: list[trio.SocketStream] = []

    async def open_stream(url: Url) -> trio.SocketStream:
        streams.append(await trio.open_tcp_stream(url.host, url.tcp_port))
        return streams[-1]

    return open_stream, streams


async def take_until(interrupts: lpt_client.Interrupts, kind: type) -> list[Event]:
    found: list[Event] = []
    with trio.fail_after(BOUND_S):
        while not found or type(found[-1]) is not kind:
            found.append(await interrupts.__anext__())
    return found


async def test_a_broken_connection_loses_nothing(url: str) -> None:
    open_stream, streams = cuttable()
    async with lpt_client.open_port(url) as port, port.allocated():
        async with lpt_client.open_port(url, reconnect=True, open_stream=open_stream) as listener:
            async with listener.connect_interrupt() as interrupts:
                for number in range(1, 4):
                    await port.pulse(D3, width_us=10)
                    await take_until(interrupts, Interrupt)
                    await trio.aclose_forcefully(streams[-1])
                    await port.pulse(D3, width_us=10)  # while it is away: the daemon lingers
                    *_, last = await take_until(interrupts, Sync)
                    assert isinstance(last, Sync)
                    assert (last.reason, last.lost) == ("resumed", 0)
                    await take_until(interrupts, Interrupt)
                    assert (interrupts.received, interrupts.lost) == (2 * number, 0)
                assert interrupts.unknown_periods == 0
        assert len(streams) == 4


async def test_a_holder_whose_connection_breaks_no_longer_owns(url: str) -> None:
    open_stream, streams = cuttable()
    async with lpt_client.open_port(url) as other:
        with pytest.raises(lpt_client.ConnectionLost):
            async with lpt_client.open_port(url, reconnect=True, open_stream=open_stream) as port:
                async with port.allocated():
                    await port.write_data(0xFF)
                    await trio.aclose_forcefully(streams[0])
                    await trio.sleep_forever()
        with trio.fail_after(BOUND_S):
            async with other.allocated():
                pass


async def test_a_daemon_that_is_restarted(daemon: Daemon) -> None:
    async with lpt_client.open_port(daemon.url, reconnect=True) as port, port.connect_interrupt() as interrupts:
        stream = port.session.stream
        async with port.allocated():
            await port.pulse(D3, width_us=10)
        await take_until(interrupts, Interrupt)
        assert await trio.to_thread.run_sync(daemon.stop) == 0
        again = await trio.to_thread.run_sync(daemon.again)
        try:
            found = await take_until(interrupts, Sync)
            assert [type(each) for each in found] == [Mark, Reconnected, Sync]
            assert isinstance(found[0], Mark)
            assert found[0].kind == "stopped"
            assert isinstance(found[2], Sync)
            assert (found[2].reason, found[2].lost) == ("restarted", None)
            await port.wait_connected()
            assert port.session.stream != stream
            async with port.allocated():
                await port.pulse(D3, width_us=10)
            await take_until(interrupts, Interrupt)
            assert (interrupts.received, interrupts.lost, interrupts.unknown_periods) == (2, 0, 1)
        finally:
            again.kill()


async def test_a_daemon_that_is_killed(daemon: Daemon) -> None:
    async with lpt_client.open_port(daemon.url) as port:
        with pytest.raises(lpt_client.ConnectionLost), trio.fail_after(BOUND_S):
            async with port.allocated():
                daemon.process.kill()
                await port.pulse(1, width_us=10_000_000)
    with pytest.raises(lpt_client.ConnectFailed):
        async with lpt_client.open_port(daemon.url):
            pass


async def test_those_who_wait_are_told_that_the_daemon_stops(daemon: Daemon) -> None:
    async with lpt_client.open_port(daemon.url) as owner, lpt_client.open_port(daemon.url) as waiter:

        async def stop() -> None:
            while await owner.waiters() < 1:
                await trio.sleep(0.01)
            daemon.process.send_signal(signal.SIGTERM)

        with trio.fail_after(BOUND_S):
            async with trio.open_nursery() as nursery:
                await owner.allocate()
                nursery.start_soon(stop)
                with pytest.raises((lpt_client.RequestCancelled, lpt_client.ConnectionLost), match="stopping"):
                    await waiter.allocate()
            with pytest.raises(lpt_client.ConnectionLost, match="stopping"):
                while True:
                    await waiter.ping()


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGSTOP")
def test_a_daemon_that_does_not_answer(daemon: Daemon) -> None:
    with blocking.open_port(daemon.url, reply_timeout_s=0.2) as port:
        os.kill(daemon.process.pid, signal.SIGSTOP)
        os.waitpid(daemon.process.pid, os.WUNTRACED)  # it has stopped
        try:
            with pytest.raises(lpt_client.ConnectionLost, match="did not answer"):
                port.read_data()
            with pytest.raises(lpt_client.ConnectFailed):
                blocking.open_port(daemon.url, connect_timeout_s=0.2)
        finally:
            os.kill(daemon.process.pid, signal.SIGCONT)


def test_blocking_survives_a_restart(daemon: Daemon) -> None:
    with blocking.open_port(daemon.url, reconnect=True) as port, port.connect_interrupt() as interrupts:
        assert daemon.stop() == 0
        again = daemon.again()
        try:
            found: list[Any] = []
            while not any(isinstance(each, Sync) for each in found):
                found.append(interrupts.next(BOUND_S))
            assert [type(each) for each in found] == [Mark, Reconnected, Sync]
            with port.allocated():
                port.pulse(D3, width_us=10)
            assert isinstance(interrupts.next(BOUND_S), Interrupt)
        finally:
            port.close()
            again.kill()
