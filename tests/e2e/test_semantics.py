"""The contract's numbered semantics, as far as the wire shows them; the numbers are in the tests' names.

Semantic 9, removal, cannot be brought about from the wire: tests/server/test_port_worker.py has it. Those that need
other settings than `--simulate` are in test_configured.py.
"""

from __future__ import annotations

import struct

import pytest

from tests.e2e.client import (
    ALLOCATE,
    CONNECT_INTERRUPT,
    CONTROL,
    DATA,
    FREE,
    FREE_FROM_INTERRUPT_LEVEL,
    FREE_PORT,
    INTERNAL,
    INTERRUPT_ENABLE,
    PULSE,
    QUERY_NUM_WAITERS,
    READ_PORT_UCHAR,
    TRY_ALLOCATE_AT_INTERRUPT_LEVEL,
    TRY_ALLOCATE_PORT,
    UNHEARD,
    WRITE_PORT_UCHAR,
    Account,
    RawClient,
    interrupts,
    pulse,
    routine,
    u64,
)
from tests.e2e.conftest import Connect
from tests.e2e.daemons import eventually


def enqueue(client: RawClient) -> int:
    """Wait for the port; the msgid, once the daemon has put it into the queue."""
    msgid = client.control(ALLOCATE, b"", 8)
    assert client.notification("queued")[0] == msgid
    return msgid


def waiting(client: RawClient) -> int:
    """QueryNumWaiters."""
    return int.from_bytes(client.ioctl(QUERY_NUM_WAITERS, client.handle, 4), "little")


def try_allocate(client: RawClient, code: int = TRY_ALLOCATE_PORT) -> bool:
    (granted,) = client.ioctl(code, client.handle, 1)
    return bool(granted)


# 1: one FIFO


def test_semantic_01_the_port_goes_to_the_longest_waiter(connect: Connect) -> None:
    owner, *waiters = (connect() for _ in range(6))
    grants = [owner.allocate(timeout_ms=0)]
    msgids = [enqueue(client) for client in waiters]
    holder = owner
    for client, msgid in zip(waiters, msgids, strict=True):
        holder.ioctl(FREE)
        grants.append(u64(client.output(msgid)))
        holder = client
    assert grants == list(range(grants[0], grants[0] + 6)), "each grant has a number, larger than every one before"
    holder.ioctl(FREE)
    assert owner.call("status")["owner"] is None


def test_semantic_01_no_newcomer_slips_in(connect: Connect) -> None:
    """Free, allocate and try-allocate of the owner come in one piece; the waiter is served first all the same."""
    owner, waiter = connect(), connect()
    owner.allocate()
    first = enqueue(waiter)
    owner.send(
        [0, 1001, INTERNAL, [FREE, b"", 0]],
        [0, 1002, INTERNAL, [TRY_ALLOCATE_PORT, owner.handle, 1]],
        [0, 1003, INTERNAL, [ALLOCATE, b"", 0]],
    )
    assert waiter.output(first)
    assert owner.output(1001) == b""
    assert owner.output(1002) == b"\x00"
    waiter.ioctl(FREE)
    assert owner.output(1003) == b""


@pytest.mark.parametrize(
    ("allocate", "free"), [(TRY_ALLOCATE_PORT, FREE_PORT), (TRY_ALLOCATE_AT_INTERRUPT_LEVEL, FREE_FROM_INTERRUPT_LEVEL)]
)
def test_semantic_01_try_allocate_never_waits_and_fails_while_anyone_waits(
    connect: Connect, allocate: int, free: int
) -> None:
    client, other, waiter = connect(), connect(), connect()
    output = client.ioctl(allocate, client.handle, 16)
    granted, grant = struct.unpack("<B7xQ", output)
    assert granted == 1
    assert client.call("status")["owner"]["grant"] == grant
    assert other.ioctl(allocate, other.handle, 16) == b"\x00" * 16
    assert other.ioctl(allocate, other.handle, 15) == b"\x00"
    assert not try_allocate(client, allocate), "not even its owner gets it twice"
    assert waiting(client) == 0
    msgid = enqueue(waiter)
    assert waiting(other) == 1
    assert not try_allocate(other, allocate)
    client.ioctl(free, client.handle)
    assert waiter.output(msgid)


def test_semantic_01_positions_are_told(connect: Connect) -> None:
    """`queued`: 1 is next; again when it changes. `waiters`: to the owner."""
    owner, one, two, three = (connect() for _ in range(4))
    owner.allocate()
    msgids = [one.control(ALLOCATE)]
    assert one.notification("queued") == [msgids[0], 1]
    assert owner.notification("waiters") == [1]
    msgids.append(two.control(ALLOCATE))
    assert two.notification("queued") == [msgids[1], 2]
    assert owner.notification("waiters") == [2]
    msgids.append(three.control(ALLOCATE))
    assert three.notification("queued") == [msgids[2], 3]
    one.cancel(msgids[0])
    assert one.refusal(msgids[0]) == "STATUS_CANCELLED"
    assert two.notification("queued") == [msgids[1], 1]
    assert three.notification("queued") == [msgids[2], 2]
    owner.ioctl(FREE)
    assert two.output(msgids[1]) == b""
    assert three.notification("queued") == [msgids[2], 1]
    assert two.notification("waiters") == [1]


# 2: what a session holds dies with it (test_killed_clients.py kills it at every moment)


@pytest.mark.parametrize("end", ["close", "reset"])
def test_semantic_02_what_a_session_holds_dies_with_it(connect: Connect, end: str) -> None:
    client, next_, later = connect(), connect(), connect()
    client.allocate()
    client.connect_interrupt(deferred=7)
    msgid = enqueue(next_)
    getattr(client, end)()
    next_.output(msgid)
    enqueue(later)
    getattr(later, end)()
    eventually(lambda: next_.call("status")["waiting"] == 0)
    report = next_.call("status")
    assert report["registered"] == 0
    assert report["owner"]["session"] == next_.welcome["session"]
    assert report["counters"]["forced_releases"] >= 1


# 3: connecting


def test_semantic_03_connecting_needs_no_ownership_and_one_frame_serves_all_routines(connect: Connect) -> None:
    owner, listener = connect(), connect()
    owner.allocate()
    first = listener.connect_interrupt(1)
    second = listener.connect_interrupt(2, deferred=3)
    assert first == second
    owner.raise_interrupts(1)
    assert listener.notification("interrupt")[0] == first
    assert interrupts(listener.heard()) == []


def test_semantic_03_a_deferred_check_alone_gets_no_interrupts_and_enables_nothing(connect: Connect) -> None:
    owner, listener, other = connect(), connect(), connect()
    owner.allocate()
    listener.connect_interrupt(0, deferred=9)
    assert not listener.read(CONTROL) & INTERRUPT_ENABLE
    other.connect_interrupt(1)
    owner.raise_interrupts(3)
    other.disconnect_interrupt(1)  # its fence: all three have come
    account = Account()
    eventually(lambda: account.add(other.heard()).received == 3)
    assert listener.heard() == []
    assert listener.disconnect_interrupt(0, deferred=9) >= 3


# 4: quiet unless somebody listens


def test_semantic_04_the_device_is_enabled_while_somebody_listens(connect: Connect) -> None:
    one, two = connect(), connect()
    one.send(
        [0, 1001, INTERNAL, [READ_PORT_UCHAR, CONTROL, 1]],
        [0, 1002, INTERNAL, [CONNECT_INTERRUPT, routine(1), 32]],
        [0, 1003, INTERNAL, [READ_PORT_UCHAR, CONTROL, 1]],
    )
    bits = [one.output(msgid)[0] & INTERRUPT_ENABLE for msgid in (1001, 1003)]
    assert bits == [0, INTERRUPT_ENABLE]
    two.connect_interrupt(1)
    one.disconnect_interrupt(1)
    assert two.read(CONTROL) & INTERRUPT_ENABLE
    two.disconnect_interrupt(1)
    assert not two.read(CONTROL) & INTERRUPT_ENABLE


def test_semantic_04_interrupts_while_nobody_listens_are_nobody_s(connect: Connect) -> None:
    owner, listener = connect(), connect()
    owner.allocate()
    owner.raise_interrupts(5)
    before = listener.call("status")["interrupts"]["generated"]
    listener.connect_interrupt()
    assert listener.notification("interrupt_sync") == ["connected", before, 0]
    assert interrupts(listener.heard()) == []


def test_semantic_04_the_source_lingers_when_the_last_listener_vanishes(connect: Connect) -> None:
    """So a client that comes back misses nothing; a disconnect ends it at once."""
    owner, listener = connect(), connect()
    owner.allocate()
    next_seq = listener.connect_interrupt() + 1
    owner.raise_interrupts(1)
    listener.notification("interrupt")
    listener.reset()
    eventually(lambda: owner.call("status")["interrupts"]["lingering"])
    assert owner.read(CONTROL) & INTERRUPT_ENABLE
    owner.raise_interrupts(3)
    back = connect()
    back.connect_interrupt(from_=[back.welcome["stream"], next_seq])
    assert back.notification("interrupt_sync") == ["resumed", next_seq, 0]
    heard = interrupts(back.heard())
    assert [params[5] for params in heard] == [0] * len(heard)
    assert sum(params[2] for params in heard) == 3
    back.disconnect_interrupt()
    assert not owner.read(CONTROL) & INTERRUPT_ENABLE
    assert not owner.call("status")["interrupts"]["lingering"]


def test_semantic_04_listening_again_after_a_silence_is_marked(connect: Connect) -> None:
    client = connect()
    end_seq = client.connect_interrupt()
    client.disconnect_interrupt()
    client.heard()
    client.connect_interrupt(from_=[client.welcome["stream"], end_seq])
    assert client.notification("interrupt_sync")[:2] == ["resumed", end_seq]
    kinds = [params[5] for params in interrupts(client.heard())]
    assert UNHEARD in kinds


def test_from_another_stream_is_restarted_with_unknown_loss(connect: Connect) -> None:
    client = connect()
    first_seq = client.connect_interrupt(from_=[client.welcome["stream"] ^ 2, 5])
    assert client.notification("interrupt_sync") == ["restarted", first_seq, None]


def test_from_counts_only_at_a_session_s_first_isr(connect: Connect) -> None:
    client = connect()
    client.connect_interrupt(1)
    client.heard()
    client.connect_interrupt(2, from_=[client.welcome["stream"], 0])
    assert client.heard() == []


# 5: the fence


def test_semantic_05_the_fence(connect: Connect) -> None:
    """The reply to connect precedes every event; that to the last disconnect follows all, and none comes after."""
    owner, listener = connect(), connect()
    owner.allocate()
    writes = [[0, 2000 + n, INTERNAL, [WRITE_PORT_UCHAR, DATA + (b"\x08", b"\x00")[n % 2], 0]] for n in range(4000)]
    for round_ in range(5):
        owner.send(*writes[: len(writes) // 2])
        connected = listener.control(CONNECT_INTERRUPT, routine(1), 40)
        owner.send(*writes[len(writes) // 2 :])
        messages = [listener.receive()]
        assert messages[0][:2] == [1, connected]
        first_seq = u64(messages[0][3][1][32:])
        disconnected = listener.control(0x160038, routine(1), 8)
        while messages[-1][:2] != [1, disconnected]:
            messages.append(listener.receive())
        end_seq = u64(messages[-1][3][1])
        assert listener.heard() == [], round_
        account = Account().add(messages)
        assert messages[1] == [2, "interrupt_sync", ["connected", first_seq, 0]]
        assert account.received + account.lost == end_seq - first_seq
        owner.heard()


def test_semantic_05_disconnecting_one_of_several_routines_is_answered_at_once(connect: Connect) -> None:
    owner, listener = connect(), connect()
    owner.allocate()
    listener.connect_interrupt(1)
    listener.connect_interrupt(2)
    listener.disconnect_interrupt(1)
    owner.raise_interrupts(1)
    assert listener.notification("interrupt")[2] == 1
    listener.disconnect_interrupt(2)
    owner.raise_interrupts(1)
    assert interrupts(listener.heard()) == []


# 6: the deferred port check


def test_semantic_06_the_deferred_port_check(connect: Connect) -> None:
    """When the port goes idle with nobody waiting, for each registration in order; after a forced release too."""
    owner, waiter, listener = connect(), connect(), connect()
    for deferred, context in ((10, 11), (20, 21)):
        listener.ioctl(CONNECT_INTERRUPT, routine(0, deferred, deferred_context=context), 32)
    owner.allocate()
    msgid = enqueue(waiter)
    owner.ioctl(FREE)
    waiter.output(msgid)
    assert listener.heard() == [], "not on a hand-off"
    waiter.ioctl(FREE)
    assert [message[1:] for message in listener.heard()] == [["port_check", [10, 11]], ["port_check", [20, 21]]]
    owner.allocate()
    owner.reset()
    assert listener.notification("port_check") == [10, 11]
    assert listener.notification("port_check") == [20, 21]


# 10: safe state (unset here; test_configured.py has it set)


def test_semantic_10_lines_are_left_alone_where_no_safe_state_is_set(connect: Connect) -> None:
    owner, other = connect(), connect()
    owner.allocate()
    owner.write(DATA, 0x55)
    owner.reset()
    eventually(lambda: other.call("status")["owner"] is None)
    assert other.read(DATA) == 0x55


# 11: jobs


def test_semantic_11_a_pulse(connect: Connect) -> None:
    """It answers after the second edge, with the times of both; the owner's later requests wait behind it, in order."""
    owner = connect()
    owner.allocate()
    began_ns, _ = owner.call("ping")
    msgid = owner.control(PULSE, pulse(0xA5, 0x5A, 20_000), 16)
    behind = [owner.control(READ_PORT_UCHAR, DATA, 1), owner.control(WRITE_PORT_UCHAR, DATA + b"\x33")]
    messages = [owner.receive() for _ in range(3)]
    assert [message[1] for message in messages] == [msgid, *behind]
    first_ns, second_ns = struct.unpack("<QQ", messages[0][3][1])
    assert began_ns < first_ns
    assert second_ns - first_ns >= 20_000_000
    assert messages[1][3] == [1, b"\x5a"]
    assert owner.read(DATA) == 0x33


def test_semantic_11_everybody_else_is_served_meanwhile_and_a_pulse_can_be_cancelled(connect: Connect) -> None:
    owner, other = connect(), connect()
    owner.allocate()
    msgid = owner.control(PULSE, pulse(1, 2, 10_000_000), 16)
    behind = owner.control(WRITE_PORT_UCHAR, DATA + b"\x07")
    eventually(lambda: other.read(DATA) == 1)
    assert other.refused(WRITE_PORT_UCHAR, DATA + b"\x00") == "STATUS_ACCESS_DENIED"
    assert other.call("status")["owner"]["session"] == owner.welcome["session"]
    assert owner.heard() == [], "the owner's ping does not need the port"
    owner.cancel(msgid)
    assert owner.refusal(msgid) == "STATUS_CANCELLED"
    assert owner.output(behind) == b""
    assert other.read(DATA) == 7


def test_semantic_11_an_owner_that_dies_in_a_pulse(connect: Connect) -> None:
    owner, waiter = connect(), connect()
    owner.allocate()
    owner.control(PULSE, pulse(1, 2, 10_000_000), 16)
    msgid = enqueue(waiter)
    owner.reset()
    waiter.output(msgid)
    assert waiter.read(DATA) == 2, "the job was ended properly"
