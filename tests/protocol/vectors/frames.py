"""Single frames: every method, every control code, every notification, and other encodings of the same."""

from __future__ import annotations

from lpt_service.protocol.ioctl import Ioctl
from lpt_service.protocol.status import Status
from tests.protocol.vectors.notation import (
    CHECK,
    CHECK_CONTEXT,
    CONTEXT,
    DEVICE,
    GRANT,
    HANDLE,
    INTERRUPT_INFORMATION,
    MONOTONIC_NS,
    MORE_PORT_INFORMATION,
    PNP_INFORMATION,
    PORT_INFORMATION,
    REALTIME_NS,
    SERVICE_ROUTINE,
    SESSION,
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
from tests.protocol.wire import longest

WELCOME = {
    "protocol": 1,
    "server": "lpt-service 0.1.0",
    "port": "LPT1",
    "session": SESSION,
    "stream": STREAM,
    "clock": {"monotonic_ns": MONOTONIC_NS, "realtime_ns": REALTIME_NS},
    "limits": {"max_frame_bytes": 65536, "max_items": 64, "max_string_bytes": 1024, "max_nesting": 8},
    "features": ("disconnected",),
}
STATUS = {
    "owner": {"session": SESSION, "client": "stimulus", "peer": "127.0.0.1:51234", "grant": GRANT},
    "waiters": ({"session": 8, "client": "eeg", "peer": "127.0.0.1:51240", "position": 1},),
    "registrations": ({"session": 8, "client": "eeg", "interrupt": True, "deferred": False},),
    "counters": {"grants": 42, "frees": 41},
}

REQUESTS = {
    "hello, least": client(request(1, "hello", {"protocol": 1}), "Open a session on the only port of a daemon."),
    "hello, everything": client(
        request(
            1,
            "hello",
            {
                "protocol": 1,
                "client": "stimulus",
                "port": "LPT1",
                "token": "a secret",
                "resume": "a session",
                "notifications": ("interrupt", "interrupt_sync", "closing"),
            },
        ),
        "Open a session; of the notifications only these are wanted.",
    ),
    "hello, without bin": client(
        request(1, "hello", {"protocol": 1, "raw": True}),
        "The client's MessagePack has one type, raw, for text and bytes: it sends buffers so, and is sent all so.",
    ),
    "ping": client(request(2, "ping"), "Are you there, and what time is it?"),
    "status": client(request(3, "status"), "What does the port do?"),
    "status, with a map": client(request(3, "status", {}), "The same."),
    "cancel": client(notice("cancel", 4), "End request 4, if it is still pending. There is no reply to this."),
    "allocate": client(
        control(4, Ioctl.PARALLEL_PORT_ALLOCATE, output_length=8),
        "Wait for the port, and tell the number of the grant.",
    ),
    "allocate, as Windows has it": client(
        control(4, Ioctl.PARALLEL_PORT_ALLOCATE), "Wait for the port. No output is wanted."
    ),
    "allocate, with a time-out": client(
        control(4, Ioctl.PARALLEL_PORT_ALLOCATE, output_length=8, options={"timeout_ms": 500}),
        "Wait half a second at the most.",
    ),
    "free": client(control(5, Ioctl.PARALLEL_PORT_FREE), "Give the port to whoever is next."),
    "get port information": client(
        control(6, Ioctl.GET_PARALLEL_PORT_INFO, output_length=56), "PARALLEL_PORT_INFORMATION, please."
    ),
    "get more port information": client(
        control(7, Ioctl.GET_MORE_PARALLEL_PORT_INFO, output_length=32), "MORE_PARALLEL_PORT_INFORMATION, please."
    ),
    "get Plug and Play information": client(
        control(8, Ioctl.GET_PARALLEL_PNP_INFO, output_length=112), "PARALLEL_PNP_INFORMATION, please."
    ),
    "release port information": client(control(9, Ioctl.RELEASE_PARALLEL_PORT_INFO), "No effect, as in Windows."),
    "connect interrupt": client(
        control(10, Ioctl.PARALLEL_CONNECT_INTERRUPT, SERVICE_ROUTINE, 40),
        "Connect routine 0x1001 with context 0x2002, no deferred port check. The input is a "
        "PARALLEL_INTERRUPT_SERVICE_ROUTINE, 32 bytes; 40 bytes of output have room for first_seq.",
    ),
    "connect interrupt, from an earlier place": client(
        control(10, Ioctl.PARALLEL_CONNECT_INTERRUPT, SERVICE_ROUTINE, 40, {"from": (STREAM, 1201)}),
        "The same, and begin with interrupt 1201 of that stream, where an earlier session ended.",
    ),
    "disconnect interrupt": client(
        control(11, Ioctl.PARALLEL_DISCONNECT_INTERRUPT, SERVICE_ROUTINE, 8),
        "Disconnect what was connected with the same 32 bytes; 8 bytes of output have room for end_seq.",
    ),
    "try-allocate": client(control(12, Ioctl.TRY_ALLOCATE_PORT, HANDLE, 16), "Take the port if it is free."),
    "free, through the structure": client(control(13, Ioctl.FREE_PORT, HANDLE), "As the callback FreePort."),
    "query waiters": client(control(14, Ioctl.QUERY_NUM_WAITERS, HANDLE, 4), "As the callback QueryNumWaiters."),
    "try-allocate at interrupt level": client(
        control(15, Ioctl.TRY_ALLOCATE_PORT_AT_INTERRUPT_LEVEL, HANDLE, 1), "Output of one byte: no grant is told."
    ),
    "free from interrupt level": client(control(16, Ioctl.FREE_PORT_FROM_INTERRUPT_LEVEL, HANDLE), "From an ISR."),
    "read a register": client(
        control(17, Ioctl.READ_PORT_UCHAR, bytes([1]), 1), "Read the status register (offset 1); anybody may."
    ),
    "read a register, with the input as text": client(
        request(17, "internal_device_control", int(Ioctl.READ_PORT_UCHAR), "\x01", 1),
        "The same: a character below 0x80 stands for its byte. A client that has bin sends bin.",
    ),
    "read a register, the other class": client(
        control(17, Ioctl.READ_PORT_UCHAR, bytes([1]), 1, method=DEVICE), "The codes from 0x800 exist in both classes."
    ),
    "write a register": client(
        control(18, Ioctl.WRITE_PORT_UCHAR, bytes([0, 0xA5]), 8), "Write 0xA5 to the data register; when was it done?"
    ),
    "write a register, fenced": client(
        control(18, Ioctl.WRITE_PORT_UCHAR, bytes([0, 0xA5]), 0, {"grant": GRANT}),
        "Write only if this grant is still in force.",
    ),
    "frob control": client(
        control(19, Ioctl.FROB_CONTROL, bytes([0x01, 0x01]), 1), "Set control bit 0 (nStrobe goes low), leave the rest."
    ),
    "pulse": client(
        control(20, Ioctl.PULSE, bytes([0xFF, 0x00]) + u32(1000), 16),
        "Data lines to 0xFF, and 1000 µs later to 0x00; the daemon keeps the time.",
    ),
}

REPLIES = {
    "hello's result": daemon(result(1, WELCOME), "The session is open. There may be more keys."),
    "ping's result": daemon(result(2, (MONOTONIC_NS, REALTIME_NS)), "CLOCK_MONOTONIC and CLOCK_REALTIME in ns."),
    "status's result": daemon(result(3, STATUS), "An extract: there are more keys."),
    "allocated": daemon(done(4, u64(GRANT)), "The port is yours, grant 1042."),
    "done, without output": daemon(done(5), "Information is 0."),
    "port information": daemon(
        done(6, PORT_INFORMATION),
        "PARALLEL_PORT_INFORMATION, 56 bytes: three registers; callbacks are the control codes 0x162000, 0x162004 and "
        "0x162008, and Context is what to send as their input.",
    ),
    "more port information": daemon(
        done(7, MORE_PORT_INFORMATION), "MORE_PARALLEL_PORT_INFORMATION, 32 bytes: ISA, latched."
    ),
    "Plug and Play information": daemon(
        done(8, PNP_INFORMATION), "PARALLEL_PNP_INFORMATION, 112 bytes: bidirectional, no ECP, no EPP."
    ),
    "connected": daemon(
        done(10, INTERRUPT_INFORMATION + u64(1201)),
        "PARALLEL_INTERRUPT_INFORMATION, 32 bytes, and first_seq: the routine hears interrupts from 1201 on.",
    ),
    "disconnected": daemon(done(11, u64(1204)), "end_seq: the routine has heard every interrupt before 1204."),
    "try-allocate succeeded": daemon(done(12, u64(1, GRANT)), "1, 7 bytes of 0, grant 1042."),
    "try-allocate failed": daemon(done(12, bytes(16)), "0: owned, or somebody waits. That is no error."),
    "waiters": daemon(done(14, u32(2)), "Two wait."),
    "a register": daemon(done(17, b"\xd8"), "0xD8: an idle peripheral."),
    "written": daemon(done(18, u64(MONOTONIC_NS)), "The monotonic clock right after the write."),
    "control after the frob": daemon(done(19, b"\x0d"), "The new value."),
    "pulsed": daemon(done(20, u64(MONOTONIC_NS, MONOTONIC_NS + 1_003_211)), "The times of both edges."),
    "an error": daemon(
        failed(10, Status.STATUS_BUFFER_TOO_SMALL, "input is 8 bytes, PARALLEL_INTERRUPT_SERVICE_ROUTINE is 32"),
        "Status, its name, and free text. The result is nil.",
    ),
}

NOTIFICATIONS = {
    "interrupt": interrupt(1201, MONOTONIC_NS, "Interrupt 1201, and no other."),
    "interrupt, several": interrupt(
        1202, MONOTONIC_NS + 90_000, "Interrupts 1202, 1203 and 1204; the next entry has 1205.", count=3
    ),
    "interrupt, largest numbers": interrupt(
        2**53 - 1, 2**64 - 1, "As large as they get.", count=2**32 - 1, status=0xF8, control=0x3F
    ),
    "mark unheard": interrupt(
        0, MONOTONIC_NS, "Nobody was connected until now: what came is unknown.", count=0, kind=1
    ),
    "mark masked": interrupt(
        90_000, MONOTONIC_NS, "The storm guard does not listen from here on", count=0, control=0x0C, kind=2
    ),
    "mark unmasked": interrupt(90_000, MONOTONIC_NS + 10**9, "and listens again.", count=0, kind=3),
    "mark stopped": interrupt(
        90_017, MONOTONIC_NS + 2 * 10**9, "Port removed, or daemon stopping.", count=0, control=0x0C, kind=4
    ),
    "interrupt_sync connected": daemon(
        notice("interrupt_sync", "connected", 1201, 0), "This session hears interrupts from 1201 on."
    ),
    "interrupt_sync resumed": daemon(
        notice("interrupt_sync", "resumed", 1250, 49), "It asked for 1201; 49 interrupts are no longer kept."
    ),
    "interrupt_sync overrun": daemon(
        notice("interrupt_sync", "overrun", 70_000, 3264), "It read too slowly and has lost 3264 interrupts."
    ),
    "interrupt_sync restarted": daemon(
        notice("interrupt_sync", "restarted", 0, None), "It asked for another stream: what it lost is unknown."
    ),
    "port_check": daemon(notice("port_check", CHECK, CHECK_CONTEXT), "Run the deferred port check routine 0x3003."),
    "queued": daemon(notice("queued", 4, 2), "Request 4 is second in the queue."),
    "waiters, to the owner": daemon(notice("waiters", 1), "Somebody waits for the port that you own."),
    "lease": daemon(notice("lease", "held", 5000), "Others wait: in 5 s you will lose the port that you own."),
    "revoked": daemon(notice("revoked", "port removed: the device was unplugged"), "You own the port no longer."),
    "disconnected": daemon(
        notice("disconnected", SERVICE_ROUTINE, "port removed: the device was unplugged"),
        "The registration with these 32 bytes has ended.",
    ),
    "closing": daemon(notice("closing", "the daemon is stopping"), "The last frame."),
    "a notification of a later version": daemon(notice("weather", 21), "A client ignores what it does not know."),
    "a longer error of a later version": daemon(
        (1, 10, (0xC00002B6, "STATUS_DEVICE_REMOVED", "unplugged", "more"), None),
        "A status and an item that this version does not have: a client takes what it knows.",
    ),
}

OTHER_ENCODINGS = {
    "method as bin": client_otherwise(
        request(2, "ping"), "Some libraries send names as bin.", encoded=(0, 2, b"ping", ())
    ),
    "method of a notification as bin": client_otherwise(
        notice("cancel", 4), "The same for a notification.", encoded=(2, b"cancel", (4,))
    ),
    "everything in its longest form": client_otherwise(
        control(10, Ioctl.PARALLEL_CONNECT_INTERRUPT, SERVICE_ROUTINE, 40, {"from": (STREAM, 1201)}),
        "Integers as int 64, lengths with 4 bytes: legal, and accepted.",
        longest,
    ),
    "keys in another order, unknown keys": client(
        request(1, "hello", {"colour": "green", "port": "LPT1", "protocol": 1}),
        "The daemon ignores keys it does not know.",
    ),
    "an unknown notification": client(
        notice("nvim_error_event", 0, "text"), "The daemon ignores it, before hello too."
    ),
    "a response": client(result(77, None), "It answers nothing that was asked, and is ignored."),
}

FRAMES: dict[str, Step] = {**REQUESTS, **REPLIES, **NOTIFICATIONS, **OTHER_ENCODINGS}

# The five structures, with the members in order.
STRUCTURES: dict[str, tuple[bytes, dict[str, int]]] = {
    "PARALLEL_INTERRUPT_SERVICE_ROUTINE": (
        u64(0x1001, 0x2002, CHECK, CHECK_CONTEXT),
        {
            "InterruptServiceRoutine": 0x1001,
            "InterruptServiceContext": 0x2002,
            "DeferredPortCheckRoutine": CHECK,
            "DeferredPortCheckContext": CHECK_CONTEXT,
        },
    ),
    "PARALLEL_INTERRUPT_INFORMATION": (
        INTERRUPT_INFORMATION,
        {
            "InterruptObject": STREAM,
            "TryAllocatePortAtInterruptLevel": 0x16200C,
            "FreePortFromInterruptLevel": 0x162010,
            "Context": CONTEXT,
        },
    ),
    "PARALLEL_PORT_INFORMATION": (
        PORT_INFORMATION,
        {
            "OriginalController": 0,
            "Controller": 0,
            "SpanOfController": 3,
            "TryAllocatePort": 0x162000,
            "FreePort": 0x162004,
            "QueryNumWaiters": 0x162008,
            "Context": CONTEXT,
        },
    ),
    "MORE_PARALLEL_PORT_INFORMATION": (
        MORE_PORT_INFORMATION,
        {
            "InterfaceType": 1,
            "BusNumber": 0,
            "InterruptLevel": 0,
            "InterruptVector": 0,
            "InterruptAffinity": 0,
            "InterruptMode": 1,
        },
    ),
    "PARALLEL_PNP_INFORMATION": (
        PNP_INFORMATION,
        {
            "OriginalEcpController": 0,
            "EcpController": 0,
            "SpanOfEcpController": 0,
            "PortNumber": 0,
            "HardwareCapabilities": 8,
            "TrySetChipMode": 0,
            "ClearChipMode": 0,
            "FifoDepth": 0,
            "FifoWidth": 0,
            "EppControllerPhysicalAddress": 0,
            "SpanOfEppController": 0,
            "Ieee1284_3DeviceCount": 0,
            "TrySelectDevice": 0,
            "DeselectDevice": 0,
            "Context": CONTEXT,
            "CurrentMode": 0,
            "PortName": 0,
        },
    ),
}
