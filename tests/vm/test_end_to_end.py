"""The daemon on a real kernel's ports: what the contract promises, with real interrupts and lines that somebody reads.

The daemon runs in the guest, the clients on the host. CARD is /dev/parport1, whose peripheral these tests play; PC is
/dev/parport0, the emulated port of a PC. What happens when something dies or is unplugged: `test_end_to_end_losses`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.e2e.client import (
    ALLOCATE,
    CONTROL,
    DATA,
    EVENT,
    FREE,
    FROB_CONTROL,
    MASKED,
    PULSE,
    STATUS,
    UNHEARD,
    UNMASKED,
    WRITE_PORT_UCHAR,
    Account,
    RawClient,
    interrupts,
    pulse,
)
from tests.e2e.daemons import is_clean
from tests.vm.daemon import (
    CARD,
    PC_PORT,
    SAFE_CONTROL,
    SAFE_DATA,
    DistantPeripheral,
    GuestDaemon,
    eventually,
    open_patiently,
)
from tests.vm.guest import TIMEOUT_S, Guest

# The first test waits until the guest is built.
pytestmark = [pytest.mark.system, pytest.mark.timeout(1800)]

Connect = Callable[..., RawClient]
INTERRUPT_ENABLE = 0x10
DIRECTION_INPUT = 0x20
STATUS_IDLE = 0xD8
STROBE = 0x01


@pytest.fixture
def peripheral(guest: Guest) -> Iterator[DistantPeripheral]:
    peripheral = DistantPeripheral(guest)
    yield peripheral
    peripheral.set_status(STATUS_IDLE)
    peripheral.drive_data(None)


@pytest.fixture
def connect(daemon: GuestDaemon) -> Iterator[Connect]:
    """Makes clients that have said hello; when they are gone, so is every trace of them."""
    clients: list[RawClient] = []

    def connect_one(port: str = "CARD", **keys: Any) -> RawClient:
        clients.append(daemon.connect(port, **keys))
        return clients[-1]

    yield connect_one
    for client in clients:
        client.close()
    for port in ("PC", "CARD"):
        wait_until_clean(daemon, port)


def wait_until_clean(daemon: GuestDaemon, port: str) -> None:
    eventually(lambda: is_clean(daemon.status(port)), "a session has left something behind")
    last = daemon.connect(port)
    last.connect_interrupt()
    last.disconnect_interrupt()  # the source lingers no longer
    last.close()


def wait_for_mark(client: RawClient, account: Account, kind: int) -> None:
    """Hear everything up to a mark of this kind."""
    while True:
        message = client.receive()
        account.add([message])
        if message[1] == "interrupt" and message[2][5] == kind:
            return


# Lines


def test_writes_reach_the_lines_in_order(connect: Connect, peripheral: DistantPeripheral) -> None:
    owner = connect()
    owner.allocate()
    before = peripheral.report().write_count
    values = [value * 37 & 0xFF for value in range(200)]
    writes = [owner.control(WRITE_PORT_UCHAR, DATA + bytes((value,))) for value in values]
    writes += [owner.control(WRITE_PORT_UCHAR, CONTROL + bytes((value,))) for value in range(16)]
    for msgid in writes:
        assert owner.output(msgid) == b""
    seen = [("data", value) for value in values] + [("control", value | INTERRUPT_ENABLE) for value in range(16)]
    assert peripheral.writes_since(before) == seen
    owner.write(CONTROL, SAFE_CONTROL)


@pytest.mark.parametrize("width_us", [1, 500, 20_000])
def test_a_pulse_as_the_peripheral_sees_it(connect: Connect, peripheral: DistantPeripheral, width_us: int) -> None:
    owner = connect()
    owner.allocate()
    edges = owner.ioctl(PULSE, pulse(0xAA, 0x55, width_us), 16)
    first_ns, second_ns = (int.from_bytes(edges[at : at + 8], "little") for at in (0, 8))
    up, down = peripheral.report().writes[-2:]
    assert (up.register, up.value, down.register, down.value) == ("data", 0xAA, "data", 0x55)
    assert up.at_ns < first_ns < down.at_ns < second_ns, "the kernel's clock is the daemon's"
    assert down.at_ns - up.at_ns >= width_us * 1000, "never too short"


def test_each_status_line_is_read(connect: Connect, peripheral: DistantPeripheral) -> None:
    client = connect()
    for pattern in (0x00, 0x08, 0x10, 0x20, 0x40, 0x80, 0xF8):
        peripheral.set_status(pattern)
        assert client.read(STATUS) == pattern


def test_data_lines_as_inputs(connect: Connect, peripheral: DistantPeripheral) -> None:
    owner = connect()
    owner.allocate()
    owner.write(DATA, 0x0F)
    owner.write(CONTROL, SAFE_CONTROL | DIRECTION_INPUT)
    for value in (0x00, 0x42, 0xFF):
        peripheral.drive_data(value)
        assert owner.read(DATA) == value
    owner.ioctl(FREE)
    assert peripheral.report().control == SAFE_CONTROL | INTERRUPT_ENABLE, "outputs again"
    assert peripheral.report().data == 0x0F, "a voluntary free leaves the lines alone"


def test_bytes_strobed_out_arrive_at_the_pc_ports_peripheral(connect: Connect, guest: Guest) -> None:
    owner = connect("PC")
    owner.allocate()
    before = len(guest.pc_port_output())
    sent = bytes(value * 7 % 251 for value in range(500))
    requests = []
    for value in sent:
        requests.append(owner.control(WRITE_PORT_UCHAR, DATA + bytes((value,))))
        requests += [owner.control(FROB_CONTROL, bytes((STROBE, level)), 1) for level in (STROBE, 0)]
    for msgid in requests:
        owner.output(msgid)
    assert guest.pc_port_output()[before:] == sent


def test_interrupts_of_the_pc_port(connect: Connect) -> None:
    """The end of each strobe is one."""
    listener, owner = connect("PC"), connect("PC")
    first = listener.connect_interrupt()
    owner.allocate()
    for _ in range(50):
        owner.ioctl(FROB_CONTROL, bytes((STROBE, STROBE)), 1)
        owner.ioctl(FROB_CONTROL, bytes((STROBE, 0)), 1)
        assert listener.notification("interrupt")[2] == 1
    assert listener.disconnect_interrupt() - first == 50


# Interrupts


def test_an_event_has_count_registers_and_time(connect: Connect, peripheral: DistantPeripheral) -> None:
    listener = connect()
    first = listener.connect_interrupt()
    peripheral.set_status_lines(PaperEnd=True, Busy=True)
    for number in range(3):
        before_ns = listener.call("ping")[0]
        peripheral.raise_interrupt()
        seq, at_ns, count, status, control, kind = listener.notification("interrupt")
        assert (seq - first, count, kind) == (number, 1, EVENT)
        assert (status, control) == (0x78, SAFE_CONTROL | INTERRUPT_ENABLE)
        assert before_ns < at_ns < listener.call("ping")[0]


def test_nothing_comes_after_a_disconnect(connect: Connect, peripheral: DistantPeripheral) -> None:
    """The fence: everything up to it, nothing after it. What comes while nobody listens is stray."""
    listener, other = connect(), connect()
    strays = other.call("status")["interrupts"]["stray"]
    first = listener.connect_interrupt()
    peripheral.raise_interrupt(100)
    end = listener.disconnect_interrupt()
    assert end - first == 100
    assert Account().add(listener.unread).received == 100
    listener.unread.clear()
    peripheral.raise_interrupt(5)
    report = other.call("status")["interrupts"]
    assert (report["connected"], report["stray"], report["next_seq"]) == (False, strays + 5, end)
    assert interrupts(listener.heard()) == []


def test_a_listener_that_comes_back_in_time_misses_nothing(connect: Connect, peripheral: DistantPeripheral) -> None:
    listener = connect()
    first, stream = listener.connect_interrupt(), listener.welcome["stream"]
    listener.close()
    other = connect()
    eventually(lambda: bool(other.call("status")["interrupts"]["lingering"]))
    peripheral.raise_interrupt(3)
    listener = connect()
    assert listener.connect_interrupt(from_=[stream, first]) == first
    assert listener.notification("interrupt_sync") == ["resumed", first, 0]
    end = listener.disconnect_interrupt()
    assert end == first + 3
    assert sum(count for _, _, count, *_ in interrupts(listener.unread)) == 3


def test_one_that_comes_back_late_is_told_that_nobody_heard(
    daemon: GuestDaemon, connect: Connect, peripheral: DistantPeripheral
) -> None:
    daemon.reload(PC_PORT + CARD + "interrupt_linger_s = 0.1\n")
    listener, other = connect(), connect()
    first, stream = listener.connect_interrupt(), listener.welcome["stream"]
    listener.close()
    eventually(lambda: not other.call("status")["interrupts"]["connected"])
    strays = other.call("status")["interrupts"]["stray"]
    peripheral.raise_interrupt(3)
    assert other.call("status")["interrupts"]["stray"] == strays + 3
    listener = connect()
    assert listener.connect_interrupt(from_=[stream, first]) == first
    peripheral.raise_interrupt(2)
    end = listener.disconnect_interrupt()
    assert end == first + 2
    heard = interrupts(listener.unread)
    assert heard[0][5] == UNHEARD
    assert sum(count for _, _, count, *_ in heard) == 2
    daemon.reload()


def test_ten_clients_account_for_thirty_thousand_interrupts(connect: Connect, peripheral: DistantPeripheral) -> None:
    clients = [connect() for _ in range(10)]
    starts = [client.connect_interrupt() for client in clients]
    before = peripheral.report().interrupts
    peripheral.raise_interrupt(30_000)
    raised = peripheral.report().interrupts - before
    assert raised == 30_000, "the kernel's own count"
    for client, start in zip(clients, starts, strict=True):
        assert client.disconnect_interrupt() - start == raised
        account = Account().add(client.unread)
        assert account.received + account.lost == raised
        assert account.lost == 0, "the log is long enough"
    assert connect().call("status")["interrupts"]["masks"] == 0


def test_a_slow_and_a_fast_sdk_client_account_for_a_flood(
    daemon: GuestDaemon, connect: Connect, peripheral: DistantPeripheral
) -> None:
    """One takes each event as it comes; one has room for a few, and says how many it dropped."""
    with (
        open_patiently(daemon.url()) as fast_port,
        open_patiently(daemon.url()) as slow_port,
        fast_port.connect_interrupt() as fast,
        slow_port.connect_interrupt(max_buffered_events=2) as slow,
    ):
        before = peripheral.report().interrupts
        with peripheral.flooding():
            while fast.received < 30_000:
                assert fast.next(timeout=TIMEOUT_S) is not None
        raised = peripheral.report().interrupts - before
    for stream in (fast, slow):
        assert stream.received + stream.buffered + stream.lost == raised
    assert (fast.lost, fast.unknown_periods) == (0, 0)


def test_a_port_that_fires_without_end_is_masked(
    daemon: GuestDaemon, connect: Connect, peripheral: DistantPeripheral
) -> None:
    """Semantic 8: nothing hangs, everybody else is served, every interrupt is in the log or stray."""
    daemon.reload(PC_PORT + CARD.replace("10_000_000", "1_000"))
    listener, other, neighbour = connect(), connect(), connect("PC")
    before, raised_before = other.call("status")["interrupts"], peripheral.report().interrupts
    account = Account()
    first = listener.connect_interrupt()
    with peripheral.flooding():
        wait_for_mark(listener, account, MASKED)
        for client in (other, neighbour, listener) * 20:
            client.call("ping")
        account.add(listener.unread)
        listener.unread.clear()
        eventually(lambda: bool(other.call("status")["interrupts"]["masked"]), "it fires, and is not masked")
        neighbour.allocate()
        neighbour.ioctl(FREE)
        wait_for_mark(listener, account, UNMASKED)
        wait_for_mark(listener, account, MASKED)  # it fires still
    wait_for_mark(listener, account, UNMASKED)
    peripheral.raise_interrupt(3)
    end = listener.disconnect_interrupt()
    account.add(listener.unread)
    assert account.received + account.lost == end - first
    after = other.call("status")["interrupts"]
    assert after["masks"] - before["masks"] >= 2
    generated, stray = (after[key] - before[key] for key in ("generated", "stray"))
    assert generated == end - first
    assert generated + stray == peripheral.report().interrupts - raised_before, "none came from nowhere, none is gone"
    daemon.reload()


# Ownership


def test_the_port_is_handed_on_in_order(connect: Connect, peripheral: DistantPeripheral) -> None:
    before = peripheral.report().write_count
    owner, *waiters = [connect() for _ in range(4)]
    grants = [owner.allocate()]
    requests = []
    for waiter in waiters:
        requests.append(waiter.control(ALLOCATE, b"", 8))
        waiter.notification("queued")
    owner.write(DATA, 0)
    for number, (client, follower, msgid) in enumerate(zip([owner, *waiters[:-1]], waiters, requests, strict=True), 1):
        client.ioctl(FREE)
        grants.append(int.from_bytes(follower.output(msgid), "little"))
        follower.write(DATA, number)
    waiters[-1].ioctl(FREE)
    assert grants == sorted(set(grants))
    assert peripheral.writes_since(before) == [("data", 0), ("data", 1), ("data", 2), ("data", 3)], "and no other"
    assert peripheral.report().data != SAFE_DATA
