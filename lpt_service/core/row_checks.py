"""What is checked of every control request before its handler acts, in the order of the contract."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lpt_service.core.requests import ControlRequest, invalid, missing_role
from lpt_service.protocol.errors import RequestError
from lpt_service.protocol.ioctl import Ioctl, Role
from lpt_service.protocol.status import Status
from lpt_service.protocol.structs import U64

if TYPE_CHECKING:
    from lpt_service.core.function_driver import FunctionDriver

# What needs the device itself, which a paused port leaves alone.
_TOUCHES_DEVICE: Final = frozenset(
    (Ioctl.READ_PORT_UCHAR, Ioctl.WRITE_PORT_UCHAR, Ioctl.FROB_CONTROL, Ioctl.PULSE),
)
# The DeferredPortCheckRoutine of a PARALLEL_INTERRUPT_SERVICE_ROUTINE.
_DEFERRED_ROUTINE: Final = slice(16, 24)


def _names_deferred_check(request: ControlRequest) -> bool:
    """Whether the input, whose length has not been checked yet, connects a deferred port check."""
    return request.row.code == Ioctl.PARALLEL_CONNECT_INTERRUPT and any(request.input[_DEFERRED_ROUTINE])


def check_row(driver: FunctionDriver, request: ControlRequest) -> None:
    """Check what the request's row in CONTROL_CODES says. Raises RequestError."""
    row, session, options, name = request.row, request.session, request.options, driver.settings.name
    if row.gated and not driver.settings.enable_connect_interrupt:
        raise RequestError(
            Status.STATUS_UNSUCCESSFUL,
            f"connecting interrupts is disabled; set enable_connect_interrupt = true for port {name}",
        )
    if session.role < row.role:
        raise missing_role(row.name, row.role, name, session.role)
    if session.role < Role.USE and _names_deferred_check(request):  # it is called to allocate the port
        raise missing_role(f"{row.name} with a DeferredPortCheckRoutine", Role.USE, name, session.role)
    if len(request.input) < row.input_bytes:
        raise RequestError(
            Status.STATUS_BUFFER_TOO_SMALL,
            f"input is {len(request.input)} bytes, {row.name} needs {row.input_bytes}",
        )
    if request.output_length < row.output_bytes:
        raise RequestError(
            Status.STATUS_BUFFER_TOO_SMALL,
            f"output_length is {request.output_length}, {row.name} needs {row.output_bytes}",
        )
    if driver.paused is not None and row.code in _TOUCHES_DEVICE:
        raise RequestError(Status.STATUS_DEVICE_NOT_READY, f"port {name} is paused: {driver.paused}")
    ownership = driver.ownership
    if options.grant is not None and (ownership.owner is None or ownership.grant != options.grant):
        raise RequestError(Status.STATUS_ACCESS_DENIED, f"grant {options.grant} is not in force")
    if row.takes_context and U64.unpack_from(request.input)[0] != session.context:
        raise invalid("context: not the handle that this session was given by GET_PARALLEL_PORT_INFO")
    if row.owner_only and ownership.owner is not session:
        raise RequestError(Status.STATUS_ACCESS_DENIED, f"{row.name} is for the port's owner: allocate it first")
