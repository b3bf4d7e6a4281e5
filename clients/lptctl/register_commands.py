"""lptctl read, write, pulse: the registers."""

# ruff: noqa: D301 - \b is click's mark for "leave these lines as they are"

from __future__ import annotations

from typing import Final

import click

from lpt_service.protocol.ioctl import CONTROL, DATA, PULSE_WIDTH_MAX_US, STATUS
from lptctl import outcome
from lptctl.common import (
    BYTE,
    MOMENT_TIMEOUT_S,
    Number,
    open_port,
    owned_port,
    patience_s,
    to_json,
    url_option,
    waiting_options,
)

_OFFSETS: Final = {"data": DATA, "status": STATUS, "control": CONTROL}


@click.command(epilog=outcome.HELP)
@click.argument("register", type=click.Choice(list(_OFFSETS)), default="data")
@click.option("--decimal", is_flag=True, help="Print 31 instead of 0x1f.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON map: register, value.")
@url_option
def read(register: str, decimal: bool, as_json: bool, url: str) -> None:
    """Print a register: data (the default), status or control.

    Needs no ownership, and disturbs nobody.

    \b
    Examples:
      lptctl read
      lptctl read status --json
      [ $(($(lptctl read status) & 0x20)) -ne 0 ] && echo "out of paper"
    """
    if decimal and as_json:
        raise click.UsageError("--decimal and --json contradict each other")
    with open_port(url, "read") as port:
        value = port.read(_OFFSETS[register])
    if as_json:
        click.echo(to_json({"register": register, "value": value}))
    else:
        click.echo(str(value) if decimal else f"0x{value:02x}")


@click.command(epilog=outcome.HELP)
@click.argument("register", type=click.Choice(["data", "control"]))
@click.argument("value", type=BYTE)
@waiting_options(MOMENT_TIMEOUT_S)
@url_option
def write(register: str, value: int, timeout: float | None, no_wait: bool, url: str) -> None:
    """Write VALUE to a register: data or control.

    VALUE is a byte: 85, 0x55 or 0b01010101. Owns the port for the moment, and waits for it if need be; on a terminal
    you see at which place. The lines stay as they are until somebody changes them. Bit 4 of control (interrupt enable)
    is the daemon's, and stays as it is.

    \b
    Examples:
      lptctl write data 0x55
      lptctl write control 0b00001100 --timeout 60
      lptctl write data 0 --no-wait || echo "somebody else owns the port"
    """
    with owned_port(url, "write", patience_s(timeout, no_wait)) as port:
        port.write(_OFFSETS[register], value)


@click.command(epilog=outcome.HELP)
@click.argument("value", type=BYTE)
@click.option(
    "--width-us",
    type=Number(1, PULSE_WIDTH_MAX_US),
    metavar="N",
    required=True,
    help=f"How long, in microseconds: 1 to {PULSE_WIDTH_MAX_US}.",
)
@click.option("--after", type=BYTE, default=0, show_default=True, metavar="V", help="What the lines are set to then.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON map: first_ns, second_ns, width_us.")
@waiting_options(MOMENT_TIMEOUT_S)
@url_option
def pulse(value: int, width_us: int, after: int, as_json: bool, timeout: float | None, no_wait: bool, url: str) -> None:
    """Set the data lines to VALUE for a time, then to --after.

    The daemon times the pulse; printed is how long it really was. Owns the port for the moment, and waits for it if
    need be; on a terminal you see at which place.

    \b
    Examples:
      lptctl pulse 0x01 --width-us 5000               a trigger of 5 ms on D0
      lptctl pulse 0xff --width-us 100 --after 0x0f
    """
    with owned_port(url, "pulse", patience_s(timeout, no_wait)) as port:
        edges = port.pulse(value, after, width_us=width_us)
    actual_us = (edges.second_ns - edges.first_ns) / 1000
    if as_json:
        click.echo(to_json({"first_ns": edges.first_ns, "second_ns": edges.second_ns, "width_us": actual_us}))
    else:
        click.echo(f"{actual_us:.1f} us")
