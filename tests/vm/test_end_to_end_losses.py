"""The daemon on a real kernel's ports, when something dies or is unplugged (docs/protocol.md, semantics 2, 9, 10).

As in `test_end_to_end`, the daemon runs in the guest and the clients on the host.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import trio

import lpt_client
from lpt_client.errors import ConnectionLost
from lpt_client.events import Event, Interrupt, Mark, Reconnected, Sync
from tests.e2e.client import (
    ALLOCATE,
    DATA,
    FREE,
    FROB_CONTROL,
    PULSE,
    STOPPED,
    Account,
    RawClient,
    interrupts,
    pulse,
)
from tests.e2e.daemons import PROJECT
from tests.vm.daemon import SAFE_CONTROL, SAFE_DATA, DistantPeripheral, GuestDaemon, eventually, open_patiently
from tests.vm.guest import TIMEOUT_S, Guest

# The first test waits until the guest is built.
pytestmark = [pytest.mark.system, pytest.mark.timeout(1800)]

Connect = Callable[..., RawClient]
STATUS_IDLE = 0xD8
STROBE = 0x01
SAFE = [("data", SAFE_DATA), ("control", SAFE_CONTROL | 0x10)]
LONG_PULSE_US = 10_000_000


@pytest.fixture
def peripheral(guest: Guest, daemon: GuestDaemon) -> Iterator[DistantPeripheral]:
    """In the end the card is in."""
    peripheral = DistantPeripheral(guest)
    yield peripheral
    if peripheral.report().number is None:
        peripheral.plug()
    wait_for_card(daemon, "ready")


@pytest.fixture
def connect(daemon: GuestDaemon) -> Iterator[Connect]:
    """Makes clients that have said hello."""
    clients: list[RawClient] = []

    def connect_one(port: str = "CARD", **keys: Any) -> RawClient:
        clients.append(daemon.connect(port, **keys))
        return clients[-1]

    yield connect_one
    for client in clients:
        client.close()


def wait_for_card(daemon: GuestDaemon, state: str) -> None:
    eventually(lambda: bool(daemon.status()["state"] == state), f"the card is not {state}")


def pull(daemon: GuestDaemon, peripheral: DistantPeripheral) -> None:
    peripheral.unplug()
    wait_for_card(daemon, "absent")


def put_back(daemon: GuestDaemon, peripheral: DistantPeripheral) -> None:
    assert peripheral.plug() == 1, "the daemon has let go of the card that is gone"
    wait_for_card(daemon, "ready")


# Killed clients


@pytest.mark.parametrize("state", ["owning", "in a pulse"])
def test_an_owner_is_killed(guest: Guest, connect: Connect, peripheral: DistantPeripheral, state: str) -> None:
    """Its pulse ends, the lines go to their safe state, the next in the queue gets the port: in this order."""
    host, tcp_port = guest.address()
    command = [sys.executable, "-m", "tests.e2e.victim", host, str(tcp_port), state, "CARD"]
    before = peripheral.report().write_count
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True) as victim:
        assert victim.stdout is not None
        assert victim.stdout.readline() == "ready\n"
        waiter = connect()
        msgid = waiter.control(ALLOCATE)
        waiter.notification("queued")
        victim.kill()
    assert waiter.output(msgid) == b""
    waiter.write(DATA, 0x42)
    pulsed = [("data", 0xF0), ("data", 0x05)] if state == "in a pulse" else []
    assert peripheral.writes_since(before) == [*pulsed, *SAFE, ("data", 0x42)]


# The card is pulled


def test_unplugged_while_clients_own_wait_and_listen(
    daemon: GuestDaemon, connect: Connect, peripheral: DistantPeripheral
) -> None:
    owner, waiter, listener = connect(), connect(), connect()
    owner.allocate()
    msgid = waiter.control(ALLOCATE)
    waiter.notification("queued")
    first = listener.connect_interrupt()
    peripheral.raise_interrupt(7)

    peripheral.unplug()
    assert waiter.refusal(msgid) == "STATUS_DELETE_PENDING"
    (reason,) = owner.notification("revoked")
    assert "unplugged" in reason
    wait_for_card(daemon, "absent")
    heard = interrupts(listener.heard())
    assert sum(count for _, _, count, *_ in heard) == 7
    assert heard[-1][0] == first + 7
    assert heard[-1][5] == STOPPED
    for client in (owner, waiter, listener):
        client.call("ping")
        assert client.refused(ALLOCATE) == "STATUS_DEVICE_NOT_CONNECTED"
    report = owner.call("status")
    assert (report["owner"], report["waiting"], report["registered"]) == (None, 0, 0)
    eventually(lambda: "no such device" in daemon.status()["why_absent"], "it has looked for the card")

    before = peripheral.report().write_count
    put_back(daemon, peripheral)
    owner.allocate()
    owner.write(DATA, 0x42)
    assert peripheral.writes_since(before)[-3:] == [*SAFE, ("data", 0x42)]
    assert listener.connect_interrupt() == first + 7, "the same log goes on"
    peripheral.raise_interrupt(5)
    assert listener.disconnect_interrupt() == first + 12


def test_unplugged_in_a_pulse(daemon: GuestDaemon, connect: Connect, peripheral: DistantPeripheral) -> None:
    owner = connect()
    owner.allocate()
    # Several, one after the other: until the card is pulled, a slow machine may take longer than one of them.
    pulses = [owner.control(PULSE, pulse(0xF0, 0x05, LONG_PULSE_US), 16) for _ in range(12)]
    behind = owner.control(FREE)
    owner.call("ping")
    assert peripheral.report().data == 0xF0
    peripheral.unplug()
    assert owner.refusal(pulses[-1]) == "STATUS_DELETE_PENDING"
    assert owner.refusal(behind) == "STATUS_DELETE_PENDING"
    owner.notification("revoked")
    wait_for_card(daemon, "absent")
    put_back(daemon, peripheral)
    owner.allocate()
    owner.ioctl(PULSE, pulse(0x11, 0x22, 100), 16)
    assert [write.value for write in peripheral.report().writes[-2:]] == [0x11, 0x22]


def test_unplugged_amid_a_flood(daemon: GuestDaemon, connect: Connect, peripheral: DistantPeripheral) -> None:
    listener = connect()
    first = listener.connect_interrupt()
    account = Account()
    before = peripheral.report().interrupts
    with peripheral.flooding():
        while account.received < 1000:
            account.add([listener.receive()])
        peripheral.unplug()
    raised = peripheral.report().interrupts - before
    wait_for_card(daemon, "absent")
    account.add(listener.heard())
    assert account.kinds[-1] == STOPPED
    assert account.received + account.lost == raised, "what was raised before is still told"
    put_back(daemon, peripheral)
    assert listener.connect_interrupt() == first + raised


def test_the_other_port_notices_nothing(daemon: GuestDaemon, connect: Connect, peripheral: DistantPeripheral) -> None:
    owner, listener, witness = connect("PC"), connect("PC"), connect("CARD")
    grant, first = owner.allocate(), listener.connect_interrupt()
    witness.connect_interrupt()
    for change in (None, pull, put_back):
        if change is not None:
            change(daemon, peripheral)
        for level in (STROBE, 0):
            owner.ioctl(FROB_CONTROL, bytes((STROBE, level)), 1, grant=grant)
        assert listener.notification("interrupt")[2] == 1
    assert listener.disconnect_interrupt() - first == 3
    assert owner.heard() == []
    assert listener.heard()[0][2][0] == "connected"
    assert interrupts(witness.heard())[-1][5] == STOPPED


@pytest.mark.parametrize("five", range(4))
def test_unplugged_and_plugged_in_twenty_times(
    daemon: GuestDaemon, connect: Connect, peripheral: DistantPeripheral, five: int
) -> None:
    """The same sessions go on, and nothing is left behind. In four parts, for each must end within a minute."""
    owner, listener = connect(), connect()
    eventually(lambda: bool(owner.call("status")["sessions"] == 2), "others are still there")
    descriptors = daemon.descriptors()
    for _ in range(5):
        owner.allocate()
        first = listener.connect_interrupt()
        peripheral.raise_interrupt(2)
        pull(daemon, peripheral)
        owner.notification("revoked")
        heard = interrupts(listener.heard())
        assert sum(count for _, _, count, *_ in heard) == 2
        assert (heard[-1][0], heard[-1][5]) == (first + 2, STOPPED)
        put_back(daemon, peripheral)
    eventually(lambda: daemon.descriptors() <= descriptors, "descriptors are left")


def test_another_card_is_in_before_the_daemon_has_looked(
    daemon: GuestDaemon, connect: Connect, peripheral: DistantPeripheral
) -> None:
    """The kernel gives it another number, for the daemon holds the one that is gone."""
    owner = connect()
    owner.allocate()
    daemon.signal("STOP")
    peripheral.unplug()
    assert peripheral.plug() == 2
    daemon.signal("CONT")
    owner.notification("revoked")
    wait_for_card(daemon, "absent")
    peripheral.unplug()
    put_back(daemon, peripheral)
    owner.allocate()


async def test_a_trio_client_goes_on_when_the_card_is_back(daemon: GuestDaemon, peripheral: DistantPeripheral) -> None:
    with trio.fail_after(2 * TIMEOUT_S):
        async with (
            lpt_client.open_port(daemon.url(), reconnect=True, connect_timeout_s=TIMEOUT_S) as port,
            port.connect_interrupt() as events,
        ):
            await trio.to_thread.run_sync(pull, daemon, peripheral)
            event = await anext(events)
            assert isinstance(event, Mark)
            assert event.kind == "stopped"
            await trio.to_thread.run_sync(put_back, daemon, peripheral)
            assert isinstance(await anext(events), Reconnected)
            await trio.to_thread.run_sync(peripheral.raise_interrupt, 3)
            while events.received < 3:
                await anext(events)
            assert events.lost == 0
            async with port.allocated():
                await port.write_data(0x42)


# The daemon is killed


def test_the_daemon_is_killed_and_started_again(
    daemon: GuestDaemon, connect: Connect, peripheral: DistantPeripheral
) -> None:
    heard: list[Event] = []
    with (
        open_patiently(daemon.url(), reconnect=True) as port,
        port.connect_interrupt() as events,
    ):
        stream = port.session.stream
        port.allocate()
        port.write_data(0xFF)
        port.write_control(0x20)  # the data lines are inputs
        before = peripheral.report().write_count
        daemon.kill()
        daemon.start()
        assert peripheral.writes_since(before)[-2:] == SAFE, "before anybody is granted"
        assert peripheral.report().control == SAFE_CONTROL | 0x10
        with pytest.raises(ConnectionLost):
            port.ping()
        while not any(isinstance(event, Sync) for event in heard):
            event = events.next(timeout=TIMEOUT_S)
            assert event is not None
            heard.append(event)
        assert isinstance(heard[0], Reconnected)
        assert isinstance(heard[-1], Sync)
        assert (heard[-1].reason, heard[-1].lost) == ("restarted", None)
        assert port.session.stream != stream
        peripheral.raise_interrupt(4)
        while events.received < 4:
            assert isinstance(events.next(timeout=TIMEOUT_S), Interrupt | Mark)
        with port.allocated():
            port.write_data(0x42)
    assert peripheral.report().data == 0x42


def test_it_starts_without_the_card(daemon: GuestDaemon, connect: Connect, peripheral: DistantPeripheral) -> None:
    daemon.stop()
    peripheral.unplug()
    daemon.start()
    client = connect()
    report = client.call("status")
    assert report["state"] == "absent"
    assert "no such device" in report["why_absent"]
    assert client.refused(ALLOCATE) == "STATUS_DEVICE_NOT_CONNECTED"
    put_back(daemon, peripheral)
    client.allocate()
    client.write(DATA, 0x42)
    assert peripheral.report().data == 0x42
