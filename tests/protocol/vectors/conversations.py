"""Whole conversations: what goes well."""

from __future__ import annotations

from lpt_service.protocol.ioctl import Ioctl
from lpt_service.protocol.status import Status
from tests.protocol.vectors.frames import STATUS, WELCOME
from tests.protocol.vectors.notation import (
    CHECK,
    CHECK_CONTEXT,
    CONTEXT,
    GRANT,
    HANDLE,
    INTERRUPT_INFORMATION,
    MONOTONIC_NS,
    PORT_CHECK_ONLY,
    PORT_INFORMATION,
    REALTIME_NS,
    SERVICE_ROUTINE,
    STREAM,
    Step,
    client,
    client_otherwise,
    control,
    daemon,
    done,
    failed,
    interrupt,
    notice,
    request,
    result,
    u32,
    u64,
)

MS = 1_000_000  # ns
OWNED = 'session 1 ("first", anonymous, 192.0.2.7:50000) owns port LPT1'
PLACE = "this request was number 1 of 1 in the queue"

HELLO = (
    client(request(1, "hello", {"protocol": 1, "client": "example", "port": "LPT1"}), "Always the first request."),
    daemon(result(1, WELCOME), "The session is open; its limits are larger from here on."),
)
STOPPING = daemon(notice("closing", "the daemon is stopping"), "The last frame; then the daemon closes.")

CONVERSATIONS: dict[str, tuple[Step, ...]] = {
    "hello, ping, status, and the daemon stops": (
        *HELLO,
        client(request(2, "ping"), "Both requests are sent at once,"),
        client(request(3, "status", {}), "without waiting for the reply to the first."),
        daemon(result(2, (MONOTONIC_NS, REALTIME_NS)), "The difference to one's own clock, within the round trip."),
        daemon(result(3, STATUS), "An extract: there are more keys."),
        STOPPING,
    ),
    "allocate waits, its turn comes, the port is used and freed": (
        *HELLO,
        client(control(2, Ioctl.PARALLEL_PORT_ALLOCATE, output_length=8), "The port is busy, so this waits."),
        daemon(notice("queued", 2, 2), "One other is before it."),
        client(request(3, "ping"), "A request that waits holds up none of the others."),
        daemon(result(3, (MONOTONIC_NS, REALTIME_NS)), "So this reply comes first."),
        daemon(notice("queued", 2, 1), "It is next."),
        daemon(done(2, u64(GRANT)), "The port is this session's, grant 1042."),
        client(
            control(4, Ioctl.WRITE_PORT_UCHAR, bytes([0, 0xA5]), 8, {"grant": GRANT}),
            "Data lines to 0xA5, if grant 1042 is still in force.",
        ),
        daemon(done(4, u64(MONOTONIC_NS + 5 * MS)), "Done, at this time."),
        client(control(5, Ioctl.FROB_CONTROL, bytes([0x01, 0x01]), 1), "nStrobe low."),
        daemon(done(5, b"\x0d"), "The control register is 0x0D now."),
        daemon(notice("waiters", 1), "Somebody else wants the port."),
        client(control(6, Ioctl.PARALLEL_PORT_FREE), "So it gets it."),
        daemon(done(6), "Freed, and handed on in the same step."),
    ),
    "interrupts: connect, events, disconnect": (
        *HELLO,
        client(
            control(2, Ioctl.PARALLEL_CONNECT_INTERRUPT, SERVICE_ROUTINE, 40),
            "Connect routine 0x1001. Owning the port is not needed.",
        ),
        daemon(
            done(2, INTERRUPT_INFORMATION + u64(1201)),
            "Connected. The reply precedes every event; the routine hears seq ≥ 1201.",
        ),
        daemon(notice("interrupt_sync", "connected", 1201, 0), "Where the session enters the log."),
        interrupt(1201, MONOTONIC_NS + 10 * MS, "Interrupt 1201."),
        interrupt(1202, MONOTONIC_NS + 20 * MS, "Interrupts 1202 and 1203, in one entry.", count=2),
        client(
            control(3, Ioctl.PARALLEL_DISCONNECT_INTERRUPT, SERVICE_ROUTINE, 8),
            "The same 32 bytes name what to disconnect.",
        ),
        interrupt(1204, MONOTONIC_NS + 30 * MS, "Interrupt 1204 came before the daemon read the request."),
        daemon(
            done(3, u64(1205)),
            "The fence: every event before it has been sent, none comes after it. end_seq is 1205, so 1201 to 1204 are "
            "all: 4 received, 0 lost.",
        ),
    ),
    "interrupts: a reader that was too slow": (
        *HELLO,
        client(
            control(2, Ioctl.PARALLEL_CONNECT_INTERRUPT, SERVICE_ROUTINE, 32), "Exactly the structure: no first_seq."
        ),
        daemon(done(2, INTERRUPT_INFORMATION), "Connected."),
        daemon(notice("interrupt_sync", "connected", 0, 0), "A new log."),
        interrupt(0, MONOTONIC_NS + MS, "Interrupt 0, the last one it takes for a while."),
        daemon(notice("interrupt_sync", "overrun", 4000, 3999), "Interrupts 1 to 3999 are lost to it."),
        interrupt(4000, MONOTONIC_NS + 9 * MS, "Interrupts 4000 to 4009. Received 11, lost 3999.", count=10),
        interrupt(4010, MONOTONIC_NS + 10 * MS, "The storm guard listens no longer,", count=0, control=0x0C, kind=2),
        interrupt(4010, MONOTONIC_NS + 1010 * MS, "and listens again. What came between is unknown.", count=0, kind=3),
        interrupt(
            4010, MONOTONIC_NS + 2000 * MS, "The port is silenced: the last entry.", count=0, control=0x0C, kind=4
        ),
        STOPPING,
    ),
    "interrupts: a client comes back": (
        *HELLO,
        client(
            control(2, Ioctl.PARALLEL_CONNECT_INTERRUPT, SERVICE_ROUTINE, 40, {"from": (STREAM, 1203)}),
            "The earlier session ended after interrupt 1202 of this stream.",
        ),
        daemon(done(2, INTERRUPT_INFORMATION + u64(1203)), "Connected."),
        daemon(notice("interrupt_sync", "resumed", 1203, 0), "All of it is still kept."),
        interrupt(1203, MONOTONIC_NS - 90_000 * MS, "What came while the daemon still listened for it."),
        interrupt(
            1204, MONOTONIC_NS, "A mark: then nobody was connected, until now. What came is unknown.", count=0, kind=1
        ),
        interrupt(1204, MONOTONIC_NS + 10 * MS, "What comes now. The mark had count 0, so this is 1204 as well."),
    ),
    "interrupts: a client comes back to a daemon that was restarted": (
        *HELLO,
        client(
            control(2, Ioctl.PARALLEL_CONNECT_INTERRUPT, SERVICE_ROUTINE, 40, {"from": (STREAM - 1, 1203)}),
            "The stream of hello is another one now, so its numbers began anew.",
        ),
        daemon(done(2, INTERRUPT_INFORMATION + u64(17)), "Connected."),
        daemon(notice("interrupt_sync", "restarted", 17, None), "What was lost is unknown."),
        interrupt(17, MONOTONIC_NS + 10 * MS, "Interrupt 17 of the new stream."),
    ),
    "deferred port check": (
        *HELLO,
        client(
            control(2, Ioctl.PARALLEL_CONNECT_INTERRUPT, PORT_CHECK_ONLY, 32),
            "A deferred port check routine alone: no interrupts come of it.",
        ),
        daemon(done(2, INTERRUPT_INFORMATION), "Connected."),
        daemon(notice("port_check", CHECK, CHECK_CONTEXT), "The port has become idle: run routine 0x3003."),
        client(control(3, Ioctl.PARALLEL_DISCONNECT_INTERRUPT, PORT_CHECK_ONLY), "No output is wanted."),
        daemon(done(3), "Disconnected."),
    ),
    "calling through the structures, as a driver would": (
        *HELLO,
        client(control(2, Ioctl.GET_PARALLEL_PORT_INFO, output_length=56), "Where are the callbacks?"),
        daemon(
            done(2, PORT_INFORMATION),
            f"TryAllocatePort is 0x162000, FreePort 0x162004, QueryNumWaiters 0x162008, Context 0x{CONTEXT:X}.",
        ),
        client(control(3, Ioctl.TRY_ALLOCATE_PORT, HANDLE, 16), "TryAllocatePort(Context)."),
        daemon(done(3, u64(1, GRANT)), "TRUE, grant 1042."),
        client(control(4, Ioctl.QUERY_NUM_WAITERS, HANDLE, 4), "QueryNumWaiters(Context)."),
        daemon(done(4, u32(0)), "Nobody waits."),
        client(control(5, Ioctl.FREE_PORT, HANDLE), "FreePort(Context)."),
        daemon(done(5), "Freed."),
        client(control(6, Ioctl.RELEASE_PARALLEL_PORT_INFO), "As the reference asks."),
        daemon(done(6), "It has no effect."),
    ),
    "a pulse keeps the port busy": (
        *HELLO,
        client(control(2, Ioctl.PARALLEL_PORT_ALLOCATE), "The port is free."),
        daemon(done(2), "Granted at once."),
        client(control(3, Ioctl.PULSE, bytes([0xFF, 0x00]) + u32(20_000), 16), "20 ms."),
        client(control(4, Ioctl.READ_PORT_UCHAR, bytes([0]), 1), "The owner's next request that needs the port waits."),
        client(request(5, "ping"), "This one does not."),
        daemon(result(5, (MONOTONIC_NS + 2 * MS, REALTIME_NS + 2 * MS)), "It is answered during the pulse."),
        daemon(done(3, u64(MONOTONIC_NS, MONOTONIC_NS + 20_004_106)), "The pulse is over: the times of its edges."),
        daemon(done(4, b"\x00"), "The data lines after it."),
    ),
    "cancel and time-out": (
        *HELLO,
        client(control(2, Ioctl.PARALLEL_PORT_ALLOCATE, output_length=8), "The port is busy."),
        daemon(notice("queued", 2, 1), "It waits."),
        client(notice("cancel", 2), "It has waited enough."),
        daemon(failed(2, Status.STATUS_CANCELLED, "cancelled by its client"), "That is its reply."),
        client(notice("cancel", 2), "A cancel of a request that is over changes nothing, and nobody answers it."),
        client(control(3, Ioctl.PARALLEL_PORT_ALLOCATE, options={"timeout_ms": 100}), "The daemon can watch the time."),
        daemon(notice("queued", 3, 1), "It waits."),
        daemon(failed(3, Status.STATUS_IO_TIMEOUT, f"{OWNED}; {PLACE}; not begun within 100 ms"), "100 ms later."),
        client(control(4, Ioctl.PARALLEL_PORT_ALLOCATE, options={"timeout_ms": 0}), "Now or never."),
        daemon(failed(4, Status.STATUS_IO_TIMEOUT, f"{OWNED}; timeout_ms is 0"), "Never."),
    ),
    "the owner loses the port": (
        *HELLO,
        client(control(2, Ioctl.PARALLEL_PORT_ALLOCATE, output_length=8), "The port is free."),
        daemon(done(2, u64(GRANT)), "Grant 1042."),
        daemon(notice("lease", "idle", 5000), "It has done nothing for long, and is warned."),
        daemon(notice("revoked", "lease: idle for 300 s"), "It has not heard of it yet when it sends:"),
        client(control(3, Ioctl.WRITE_PORT_UCHAR, bytes([0, 0xA5]), 0, {"grant": GRANT}), "A fenced write."),
        daemon(failed(3, Status.STATUS_ACCESS_DENIED, "grant 1042 is not in force"), "It touched nothing."),
    ),
    "the port goes away": (
        *HELLO,
        client(control(2, Ioctl.PARALLEL_CONNECT_INTERRUPT, SERVICE_ROUTINE, 40), "Connect."),
        daemon(done(2, INTERRUPT_INFORMATION + u64(0)), "Connected."),
        daemon(notice("interrupt_sync", "connected", 0, 0), "A new log."),
        client(control(3, Ioctl.PARALLEL_PORT_ALLOCATE), "The port is busy."),
        daemon(notice("queued", 3, 1), "It waits."),
        daemon(
            failed(3, Status.STATUS_DELETE_PENDING, "the device was unplugged"),
            "The port is being removed: requests end,",
        ),
        interrupt(0, MONOTONIC_NS + MS, "and so do registrations.", count=0, control=0x0C, kind=4),
        client(control(4, Ioctl.READ_PORT_UCHAR, bytes([1]), 1), "New requests"),
        daemon(failed(4, Status.STATUS_DELETE_PENDING, "port LPT1 is being removed"), "end so while it goes,"),
        client(control(5, Ioctl.READ_PORT_UCHAR, bytes([1]), 1), "and"),
        daemon(failed(5, Status.STATUS_DEVICE_NOT_CONNECTED, "port LPT1 is not there"), "so once it is gone."),
    ),
    "a client that a MessagePack-RPC library wrote": (
        client_otherwise(
            notice("nvim_set_client_info", "library", {}),
            "It opens with a notification of its own, its name as bin: ignored, before hello too.",
            encoded=(2, b"nvim_set_client_info", ("library", {})),
        ),
        client_otherwise(
            request(1, "hello", {"protocol": 1}),
            "Then the first request.",
            encoded=(0, 1, b"hello", ({"protocol": 1},)),
        ),
        daemon(result(1, WELCOME), "The session is open."),
        client_otherwise(request(2, "ping"), "And so on.", encoded=(0, 2, b"ping", ())),
        daemon(result(2, (MONOTONIC_NS, REALTIME_NS)), "The daemon's names are text."),
    ),
}
