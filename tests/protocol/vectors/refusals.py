"""Whole conversations: what is refused, by the rows of the contract's table of errors."""

from __future__ import annotations

from lpt_service.protocol.ioctl import Ioctl
from lpt_service.protocol.status import Status
from tests.protocol.vectors.conversations import HELLO
from tests.protocol.vectors.frames import WELCOME
from tests.protocol.vectors.notation import (
    GRANT,
    HANDLE,
    INTERRUPT_INFORMATION,
    MONOTONIC_NS,
    SERVICE_ROUTINE,
    Step,
    client,
    control,
    daemon,
    done,
    failed,
    notice,
    request,
    result,
    u32,
    u64,
)

INVALID_PARAMETER = Status.STATUS_INVALID_PARAMETER
INVALID_DEVICE_STATE = Status.STATUS_INVALID_DEVICE_STATE
TOO_SMALL = Status.STATUS_BUFFER_TOO_SMALL
DENIED = Status.STATUS_ACCESS_DENIED


def hello_refused(given: dict[str, object], status: Status, detail: str) -> tuple[Step, ...]:
    """A hello that ends the conversation."""
    return (
        client(request(1, "hello", given), "The first request."),
        daemon(failed(1, status, detail), "Refused."),
        daemon(notice("closing", f"hello refused: {status.name}: {detail}"), "Then the daemon closes."),
    )


CONVERSATIONS: dict[str, tuple[Step, ...]] = {
    "hello refused: another protocol": hello_refused(
        {"protocol": 2}, Status.STATUS_NOT_SUPPORTED, "protocol: version 2 is not supported"
    ),
    "hello refused: token": hello_refused(
        {"protocol": 1, "port": "LPT1", "token": "guessed"}, Status.STATUS_ACCESS_DENIED, "token: missing or wrong"
    ),
    "hello refused: port": hello_refused(
        {"protocol": 1, "port": "LPT9"}, Status.STATUS_NO_SUCH_DEVICE, "port: there is no 'LPT9'"
    ),
    "before hello, and hello twice": (
        client(request(1, "ping"), "hello must come first."),
        daemon(failed(1, INVALID_DEVICE_STATE, "hello must be the first request"), "The conversation goes on."),
        client(request(2, "hello", {"protocol": "1"}), "The wrong type."),
        daemon(failed(2, INVALID_PARAMETER, "hello: protocol must be an integer, got '1'"), "It goes on."),
        client(request(3, "hello", {"protocol": 1}), "As it should be."),
        daemon(result(3, WELCOME), "The session is open."),
        client(request(4, "hello", {"protocol": 1}), "Again."),
        daemon(failed(4, INVALID_DEVICE_STATE, "hello has been said already"), "It goes on."),
    ),
    "requests of the wrong shape": (
        *HELLO,
        client(request(2, "format_disk"), "An unknown method."),
        daemon(failed(2, INVALID_PARAMETER, "method: 'format_disk' is not known"), "The conversation goes on."),
        client((0, 3, "ping", None), "params are an array."),
        daemon(failed(3, INVALID_PARAMETER, "ping: params are []"), "And so on."),
        client(request(4, "internal_device_control", 0x16002C, b""), "output_length is missing."),
        daemon(
            failed(
                4,
                INVALID_PARAMETER,
                "internal_device_control: params are [code, input, output_length] or with a map of options",
            ),
            "",
        ),
        client(control(5, 0x160000), "No control code."),
        daemon(failed(5, INVALID_PARAMETER, "code: 0x160000 is no control code of internal_device_control"), ""),
        client(
            control(6, Ioctl.PARALLEL_CONNECT_INTERRUPT, SERVICE_ROUTINE, 32, method="device_control"),
            "The Windows codes exist in the internal class only.",
        ),
        daemon(failed(6, INVALID_PARAMETER, "code: 0x160034 is no control code of device_control"), ""),
        client(request(7, "internal_device_control", 0x162040, "\u00e9", 1), "The input is text: two bytes, or one?"),
        daemon(
            failed(
                7,
                INVALID_PARAMETER,
                "input: must be bin, got str with characters beyond 0x7f (pack bytes as the MessagePack type bin, or, "
                "with a library that has none, say raw: true in hello)",
            ),
            "Bytes are packed as bin. Text is taken where all its characters are below 0x80.",
        ),
        client(request(8, "internal_device_control", 0x162040, (1,), 1), "The input is an array."),
        daemon(
            failed(8, INVALID_PARAMETER, "input: must be bin, got tuple (pack bytes as the MessagePack type bin)"), ""
        ),
        client(control(9, Ioctl.READ_PORT_UCHAR, b"\x01", 2**32), "output_length is a u32."),
        daemon(failed(9, INVALID_PARAMETER, "output_length: must be a u32, got 4294967296"), ""),
        client(control(10, Ioctl.PARALLEL_PORT_ALLOCATE, options={"timeout": 1}), "An unknown option."),
        daemon(
            failed(10, INVALID_PARAMETER, "options: 'timeout' is not known; there are timeout_ms, grant and from"), ""
        ),
        client(control(11, Ioctl.PARALLEL_PORT_ALLOCATE, options={"timeout_ms": -1}), "timeout_ms is a u32."),
        daemon(failed(11, INVALID_PARAMETER, "timeout_ms: must be a u32, got -1"), ""),
        client(control(12, Ioctl.READ_PORT_UCHAR, b"\x03", 1), "There is no register 3."),
        daemon(failed(12, INVALID_PARAMETER, "offset: 3 is no register; 0 is data, 1 status, 2 control"), ""),
        client(control(13, Ioctl.QUERY_NUM_WAITERS, u64(1), 4), "Not the handle of this session."),
        daemon(
            failed(
                13, INVALID_PARAMETER, "context: not the handle that this session was given by GET_PARALLEL_PORT_INFO"
            ),
            "",
        ),
        client(control(14, Ioctl.READ_PORT_UCHAR, b"", 1), "The input is too short."),
        daemon(failed(14, TOO_SMALL, "input is 0 bytes, IOCTL_LPT_READ_PORT_UCHAR needs 1"), ""),
        client(control(15, Ioctl.GET_PARALLEL_PORT_INFO, output_length=55), "The output would not fit."),
        daemon(failed(15, TOO_SMALL, "output_length is 55, IOCTL_INTERNAL_GET_PARALLEL_PORT_INFO needs 56"), ""),
    ),
    "ownership": (
        *HELLO,
        client(control(2, Ioctl.WRITE_PORT_UCHAR, bytes([0, 0xA5])), "Without owning the port."),
        daemon(failed(2, DENIED, "IOCTL_LPT_WRITE_PORT_UCHAR is for the port's owner: allocate it first"), ""),
        client(control(3, Ioctl.PARALLEL_PORT_FREE), "Nor can it be freed."),
        daemon(failed(3, INVALID_DEVICE_STATE, "this session does not own the port"), "Nothing changes."),
        client(control(4, Ioctl.PARALLEL_PORT_ALLOCATE, output_length=8), "The port is free."),
        daemon(done(4, u64(GRANT)), "Grant 1042."),
        client(control(5, Ioctl.PARALLEL_PORT_ALLOCATE), "Again."),
        daemon(failed(5, INVALID_DEVICE_STATE, "this session owns the port already"), ""),
        client(control(6, Ioctl.TRY_ALLOCATE_PORT, HANDLE, 1), "Trying is no error,"),
        daemon(done(6, b"\x00"), "and fails: the port is owned."),
        client(control(7, Ioctl.WRITE_PORT_UCHAR, bytes([0, 0xA5]), 0, {"grant": GRANT - 1}), "An old grant."),
        daemon(failed(7, DENIED, f"grant {GRANT - 1} is not in force"), "It touched nothing."),
        client(control(8, Ioctl.WRITE_PORT_UCHAR, bytes([1, 0xA5])), "The status register."),
        daemon(
            failed(
                8,
                INVALID_PARAMETER,
                "offset: the status register is read-only; 0 (data) and 2 (control) can be written",
            ),
            "",
        ),
        client(control(9, Ioctl.PULSE, bytes([0xFF, 0x00]) + u32(0), 16), "A pulse of no width."),
        daemon(failed(9, INVALID_PARAMETER, "width_us: 0 is not between 1 and 10000000"), ""),
        client(control(10, Ioctl.WRITE_PORT_UCHAR, bytes([0, 0xA5])), "The hardware fails."),
        daemon(failed(10, Status.STATUS_IO_DEVICE_ERROR, "write of the data register failed"), ""),
    ),
    "connecting interrupts": (
        *HELLO,
        client(control(2, Ioctl.PARALLEL_CONNECT_INTERRUPT, SERVICE_ROUTINE, 32), "It is disabled by default,"),
        daemon(
            failed(2, Status.STATUS_UNSUCCESSFUL, "connecting interrupts is disabled"),
            "checked before anything else. Somebody enables it now.",
        ),
        client(control(3, Ioctl.PARALLEL_CONNECT_INTERRUPT, u64(0x1001), 32), "8 bytes of 32."),
        daemon(failed(3, TOO_SMALL, "input is 8 bytes, IOCTL_INTERNAL_PARALLEL_CONNECT_INTERRUPT needs 32"), ""),
        client(control(4, Ioctl.PARALLEL_CONNECT_INTERRUPT, SERVICE_ROUTINE, 31), "Output of 31 bytes."),
        daemon(failed(4, TOO_SMALL, "output_length is 31, IOCTL_INTERNAL_PARALLEL_CONNECT_INTERRUPT needs 32"), ""),
        client(control(5, Ioctl.PARALLEL_CONNECT_INTERRUPT, bytes(32), 32), "No routine at all."),
        daemon(failed(5, INVALID_PARAMETER, "both routines are 0: nothing to connect"), ""),
        client(control(6, Ioctl.PARALLEL_CONNECT_INTERRUPT, u64(2**63, 0, 0, 0), 32), "A reserved routine."),
        daemon(
            failed(
                6,
                INVALID_PARAMETER,
                "a routine is a token from 1 to 2^63 - 1; larger ones are reserved for the daemon's own",
            ),
            "",
        ),
        client(control(7, Ioctl.PARALLEL_CONNECT_INTERRUPT, SERVICE_ROUTINE, 32), "As it should be."),
        daemon(done(7, INTERRUPT_INFORMATION), "Connected."),
        daemon(notice("interrupt_sync", "connected", 0, 0), "Where the session enters the log."),
        client(control(8, Ioctl.PARALLEL_CONNECT_INTERRUPT, SERVICE_ROUTINE, 32), "The same 32 bytes again."),
        daemon(
            failed(
                8, INVALID_PARAMETER, "this session has connected the same PARALLEL_INTERRUPT_SERVICE_ROUTINE already"
            ),
            "",
        ),
        client(control(9, Ioctl.PARALLEL_DISCONNECT_INTERRUPT, SERVICE_ROUTINE), "Disconnect,"),
        daemon(done(9), "disconnected,"),
        client(control(10, Ioctl.PARALLEL_DISCONNECT_INTERRUPT, SERVICE_ROUTINE), "and again."),
        daemon(
            failed(10, INVALID_PARAMETER, "this session has not connected this PARALLEL_INTERRUPT_SERVICE_ROUTINE"), ""
        ),
    ),
    "a queue that is full": (
        *HELLO,
        client(control(2, Ioctl.PARALLEL_PORT_ALLOCATE), "Very many wait already."),
        daemon(
            failed(2, Status.STATUS_INSUFFICIENT_RESOURCES, "queue: 256 requests wait already, the limit"),
            "Refused by a limit; it may try later.",
        ),
    ),
    "the port cannot be made safe": (
        *HELLO,
        client(
            control(2, Ioctl.PARALLEL_PORT_ALLOCATE), "The owner has just died; its lines are driven to the safe state."
        ),
        daemon(
            failed(
                2, Status.STATUS_IO_DEVICE_ERROR, "the port could not be driven to its safe state: the write failed"
            ),
            "Nobody is granted.",
        ),
    ),
    "the port is paused": (
        *HELLO,
        client(control(2, Ioctl.READ_PORT_UCHAR, bytes([1]), 1), "Somebody is working at the device."),
        daemon(failed(2, Status.STATUS_DEVICE_NOT_READY, "port LPT1 is paused: a new cable"), "Later."),
        client(control(3, Ioctl.PARALLEL_PORT_ALLOCATE), "Who allocates it, waits:"),
        daemon(notice("queued", 3, 1), "it is the first,"),
        daemon(done(3), "and gets it when the port is resumed."),
    ),
    "a msgid that is still pending is used again": (
        *HELLO,
        client(control(2, Ioctl.PARALLEL_PORT_ALLOCATE), "The port is busy."),
        daemon(notice("queued", 2, 1), "Request 2 is pending."),
        client(request(2, "ping"), "Its replies could not be told apart."),
        daemon(notice("closing", "msgid 2 is still pending, and was used again"), "Then the daemon closes."),
    ),
    "what is not a frame": (
        *HELLO,
        client(request(2, "ping"), "The frames before it are answered."),
        daemon(result(2, (MONOTONIC_NS, 1_763_720_400_123_456_789)), "This is the answer."),
        daemon(
            notice("closing", "not a frame: a message is an array that begins with 0, 1 or 2"),
            "The client has sent one of the invalid examples after it. Then the daemon closes.",
        ),
    ),
    "no hello": (
        daemon(notice("closing", "no hello within 10 s"), "The client said nothing for 10 s. Then the daemon closes."),
    ),
}
