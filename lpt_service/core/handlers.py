"""One handler for each control code, and the table that names them.

A handler is given a request whose buffers, ownership and context have been checked as its row in
`protocol.ioctl.CONTROL_CODES` says. It returns the output, or None if the request is pending (something will complete
it later), or raises RequestError. It never awaits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from lpt_service.core import effects as fx
from lpt_service.core import port_report
from lpt_service.core.jobs import Pulse
from lpt_service.core.requests import ControlRequest, invalid
from lpt_service.protocol import messages, structs
from lpt_service.protocol.ioctl import (
    CONTROL,
    DATA,
    PULSE_WIDTH_MAX_US,
    RESERVED_ROUTINES,
    STATUS,
    Ioctl,
)

if TYPE_CHECKING:
    from lpt_service.core.function_driver import FunctionDriver

Handler = Callable[["FunctionDriver", ControlRequest, int], "bytes | None"]

# Ownership


def allocate(driver: FunctionDriver, request: ControlRequest, now_ns: int) -> bytes | None:
    """PARALLEL_PORT_ALLOCATE."""
    if not driver.ownership.is_available:
        driver.ownership.check_may_allocate(request.session)
        driver.leases.wanted(now_ns)
        driver.check_may_wait(request)
    grant = driver.arbiter.allocate(request, now_ns)
    if grant is None:
        driver.wait(request, now_ns)
        return None
    return grant_output(request, grant)


def grant_output(request: ControlRequest, grant: int) -> bytes:
    """What an allocate answers: the grant's number, if there is room for it."""
    return structs.U64.pack(grant) if request.output_length >= structs.U64.size else b""


def try_allocate(driver: FunctionDriver, request: ControlRequest, now_ns: int) -> bytes:
    """TRY_ALLOCATE_PORT and its interrupt-level form."""
    grant = driver.arbiter.try_allocate(request.session, now_ns)
    if grant is None and driver.ownership.owner is not request.session:
        driver.leases.wanted(now_ns)
    output = structs.TRY_ALLOCATE.pack(grant is not None, grant or 0)
    return output if request.output_length >= len(output) else output[:1]


def free(driver: FunctionDriver, request: ControlRequest, now_ns: int) -> bytes:
    """PARALLEL_PORT_FREE, FREE_PORT and its interrupt-level form."""
    driver.arbiter.free(request.session, now_ns)
    return b""


def query_num_waiters(driver: FunctionDriver, request: ControlRequest, now_ns: int) -> bytes:
    """QUERY_NUM_WAITERS."""
    return structs.U32.pack(driver.ownership.waiting)


# Information


def get_port_info(driver: FunctionDriver, request: ControlRequest, now_ns: int) -> bytes:
    """GET_PARALLEL_PORT_INFO."""
    return port_report.port_information(request.session.context)


def get_more_port_info(driver: FunctionDriver, request: ControlRequest, now_ns: int) -> bytes:
    """GET_MORE_PARALLEL_PORT_INFO."""
    return port_report.more_port_information()


def get_pnp_info(driver: FunctionDriver, request: ControlRequest, now_ns: int) -> bytes:
    """GET_PARALLEL_PNP_INFO."""
    return port_report.pnp_information(request.session.context, is_bidirectional=driver.port.is_bidirectional)


def release_port_info(driver: FunctionDriver, request: ControlRequest, now_ns: int) -> bytes:
    """RELEASE_PARALLEL_PORT_INFO: always succeeds, no effect, as in Windows."""
    return b""


# Interrupts


def connect_interrupt(driver: FunctionDriver, request: ControlRequest, now_ns: int) -> bytes:
    """PARALLEL_CONNECT_INTERRUPT. A session's first ISR enters the log, now or where `from` says."""
    session, registry, log = request.session, driver.registry, driver.registry.log
    structure = structs.PARALLEL_INTERRUPT_SERVICE_ROUTINE.unpack(request.input)
    routines = (structure.InterruptServiceRoutine, structure.DeferredPortCheckRoutine)
    if not any(routines):
        raise invalid("both routines are 0: nothing to connect")
    if max(routines) >= RESERVED_ROUTINES:
        raise invalid("a routine is a token from 1 to 2^63 - 1; larger ones are reserved for the daemon's own")
    enters_log = structure.InterruptServiceRoutine != 0 and not registry.is_listening(session)
    if enters_log:
        _check_from(driver, request, now_ns)
    registry.connect(session, request.input[: structure.SIZE], now_ns)
    first_seq = _enter_log(driver, request) if enters_log else log.next_seq
    output = structs.PARALLEL_INTERRUPT_INFORMATION(
        InterruptObject=log.stream,
        TryAllocatePortAtInterruptLevel=Ioctl.TRY_ALLOCATE_PORT_AT_INTERRUPT_LEVEL,
        FreePortFromInterruptLevel=Ioctl.FREE_PORT_FROM_INTERRUPT_LEVEL,
        Context=session.context,
    ).pack()
    has_room = request.output_length >= len(output) + structs.U64.size
    return output + structs.U64.pack(first_seq) if has_room else output


def _check_from(driver: FunctionDriver, request: ControlRequest, now_ns: int) -> None:
    """Refuse a `from` that lies beyond this log."""
    log, resume_from = driver.registry.log, request.options.resume_from
    if resume_from is not None and resume_from[0] == log.stream:
        driver.registry.collect(now_ns)
        if resume_from[1] > log.next_seq:
            raise invalid(f"from: next_seq is {resume_from[1]}, the log has only come to {log.next_seq}")


def _enter_log(driver: FunctionDriver, request: ControlRequest) -> int:
    """Let the session enter the log; the number of the first interrupt that it hears."""
    log, resume_from = driver.registry.log, request.options.resume_from
    if resume_from is None:
        enter = fx.EnterLog(request.session, log.end, messages.SYNC_CONNECTED, log.next_seq, 0)
    elif resume_from[0] != log.stream:
        enter = fx.EnterLog(request.session, log.end, messages.SYNC_RESTARTED, log.next_seq, None)
    else:
        entry = log.find(resume_from[1])
        next_seq = log.seq_at(entry)
        enter = fx.EnterLog(request.session, entry, messages.SYNC_RESUMED, next_seq, next_seq - resume_from[1])
    driver.effects.append(enter)
    return enter.next_seq


def disconnect_interrupt(driver: FunctionDriver, request: ControlRequest, now_ns: int) -> bytes | None:
    """PARALLEL_DISCONNECT_INTERRUPT. The answer to a session's last one follows every event up to now: the fence."""
    session, registry = request.session, driver.registry
    size = structs.PARALLEL_INTERRUPT_SERVICE_ROUTINE.SIZE
    registration = registry.disconnect(session, request.input[:size], now_ns)
    has_room = request.output_length >= structs.U64.size
    output = structs.U64.pack(registry.log.next_seq) if has_room else b""
    if not registration.has_isr:
        return output
    if registry.is_listening(session):
        driver.effects.append(fx.Complete(session, request.msgid, output, end_seq=registry.log.next_seq))
    else:
        driver.effects.append(fx.LeaveLog(session, registry.log.end, request.msgid, output))
    return None


# Registers


def read_port_uchar(driver: FunctionDriver, request: ControlRequest, now_ns: int) -> bytes:
    """READ_PORT_UCHAR."""
    offset = request.input[0]
    if offset == DATA:
        value = driver.port.read_data()
    elif offset == STATUS:
        value = driver.port.read_status()
    elif offset == CONTROL:
        value = driver.port.read_control()
    else:
        raise invalid(f"offset: {offset} is no register; 0 is data, 1 status, 2 control")
    return structs.U8.pack(value)


def write_port_uchar(driver: FunctionDriver, request: ControlRequest, now_ns: int) -> bytes:
    """WRITE_PORT_UCHAR."""
    offset, value = request.input[0], request.input[1]
    if offset == DATA:
        written_ns = driver.port.write_data(value)
        driver.ownership.written += 1
    elif offset == CONTROL:
        written_ns = driver.port.write_control(value)
    else:
        why = "the status register is read-only" if offset == STATUS else f"{offset} is no register"
        raise invalid(f"offset: {why}; 0 (data) and 2 (control) can be written")
    return structs.U64.pack(written_ns) if request.output_length >= structs.U64.size else b""


def frob_control(driver: FunctionDriver, request: ControlRequest, now_ns: int) -> bytes:
    """FROB_CONTROL: the bits of `mask` become those of `value`; bit 4 is the daemon's, and the port leaves it alone."""
    mask, value = request.input[0], request.input[1]
    driver.port.write_control(driver.port.read_control() & ~mask | value & mask)
    return structs.U8.pack(driver.port.read_control())


def pulse(driver: FunctionDriver, request: ControlRequest, now_ns: int) -> None:
    """PULSE: a job."""
    value, after, width_us = structs.PULSE.unpack_from(request.input)
    if not 1 <= width_us <= PULSE_WIDTH_MAX_US:
        raise invalid(f"width_us: {width_us} is not between 1 and {PULSE_WIDTH_MAX_US}")
    driver.jobs.start(Pulse(request, driver.port, value, after, width_us))


HANDLERS: Final[Mapping[Ioctl, Handler]] = {
    Ioctl.PARALLEL_PORT_ALLOCATE: allocate,
    Ioctl.PARALLEL_PORT_FREE: free,
    Ioctl.GET_PARALLEL_PORT_INFO: get_port_info,
    Ioctl.RELEASE_PARALLEL_PORT_INFO: release_port_info,
    Ioctl.GET_MORE_PARALLEL_PORT_INFO: get_more_port_info,
    Ioctl.GET_PARALLEL_PNP_INFO: get_pnp_info,
    Ioctl.PARALLEL_CONNECT_INTERRUPT: connect_interrupt,
    Ioctl.PARALLEL_DISCONNECT_INTERRUPT: disconnect_interrupt,
    Ioctl.TRY_ALLOCATE_PORT: try_allocate,
    Ioctl.FREE_PORT: free,
    Ioctl.QUERY_NUM_WAITERS: query_num_waiters,
    Ioctl.TRY_ALLOCATE_PORT_AT_INTERRUPT_LEVEL: try_allocate,
    Ioctl.FREE_PORT_FROM_INTERRUPT_LEVEL: free,
    Ioctl.READ_PORT_UCHAR: read_port_uchar,
    Ioctl.WRITE_PORT_UCHAR: write_port_uchar,
    Ioctl.FROB_CONTROL: frob_control,
    Ioctl.PULSE: pulse,
}
