"""A real parallel port, by way of Linux' ppdev: /dev/parportN.

    open ─▶ PPGETMODES ─▶ is it free? ─▶ PPEXCL ─▶ PPCLAIM ─▶ PPCLRIRQ ─▶ in use ─▶ PPRELEASE ─▶ close

The port is claimed once and for good, because interrupts reach only the claimant, and exclusively, because a second
claimant that waits (PPCLAIM sleeps, under a mutex that all of ppdev shares) would freeze this one inside the kernel. So
the kernel never arbitrates; the daemon does. PPNEGOT is never called: it sleeps under the same mutex. Sysfs is asked
first who has the port: a claim that is refused leaves two lines in the kernel's log each time.

The claim sets the control register to 0x1C, whatever it was, and leaves the data latch alone. With that it enables the
port's interrupt; ppdev cannot disable it, and it stays enabled after the port is given back. ppdev counts interrupts,
and the descriptor is readable while the count is not 0. Giving the port back leaves all lines as they are.

When the device goes away ppdev says nothing: every access succeeds, reads give 0, writes are swallowed, the descriptor
does not become readable. What tells is the node, and what sysfs has of it: both are removed at once. The number stays
taken until this descriptor is closed; a card that is plugged in before gets another.

Source: drivers/char/ppdev.c, drivers/parport/share.c, drivers/parport/parport_pc.c of Linux 6.1; tests/vm shows it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from lpt_service.port.base import ParallelPort
from lpt_service.port.ppdev_ioctl import IOCTLS
from lpt_service.protocol.errors import PortError, PortGoneError
from lpt_service.protocol.ioctl import CONTROL_DIRECTION_INPUT, CONTROL_INTERRUPT_ENABLE

_MODE_TRISTATE: Final = 1 << 1  # PARPORT_MODE_TRISTATE: the data lines can be turned round
_CONTROL_LINES: Final = 0x0F  # what ppdev shows and takes of the control register
_STATUS_LINES: Final = 0xF8
_INT: Final = struct.Struct("i")
# Who is registered with a port, one link each: /sys/bus/parport/devices/lp.0 → …/parport0/lp.0
_PARPORT_DEVICES: Final = Path("/sys/bus/parport/devices")
# The devices that there are, one link each: /sys/dev/char/99:0
_CHARACTER_DEVICES: Final = Path("/sys/dev/char")

Ioctl = Callable[[int, int, bytes], bytes]


class PpdevPort(ParallelPort):
    """One /dev/parportN, held from construction until `close`.

    Error handling: an access raises PortGoneError when the kernel says that the device is gone, PortError otherwise.
    Linux 6.1 says nothing at an access: `check_present` finds out.

    Resource handling: one descriptor, and the exclusive claim of the port; a process that dies gives both back.

    Synchronization: constructing and closing may sleep in the kernel, as long as another program does inside ppdev. A
    register access takes microseconds.
    """

    kind = "ppdev"
    can_disable_interrupt = False

    def __init__(
        self, path: str, *, monotonic_ns: Callable[[], int] = time.monotonic_ns, ioctl: Ioctl = fcntl.ioctl
    ) -> None:
        """Open and claim the port. Raises PortError, whose text says what to do about it."""
        self._path = path
        self._monotonic_ns = monotonic_ns
        self._ioctl = ioctl
        self._direction = 0
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        except OSError as exc:
            raise PortError(_explain_open(path, exc)) from exc
        try:
            self._node = _identity(os.fstat(self._fd))
            self.is_bidirectional = self._claim()
        except BaseException:
            os.close(self._fd)
            raise

    def _claim(self) -> bool:
        """Claim the port; whether its data lines can be turned round."""
        try:
            modes = _INT.unpack(self._ioctl(self._fd, IOCTLS.PPGETMODES, bytes(_INT.size)))[0]
            if holders := _holders(self._path):
                raise PortError(_explain_busy(self._path, holders))
            self._ioctl(self._fd, IOCTLS.PPEXCL, b"")
            self._ioctl(self._fd, IOCTLS.PPCLAIM, b"")
            self._ioctl(self._fd, IOCTLS.PPCLRIRQ, bytes(_INT.size))  # the claim itself may raise one
        except OSError as exc:
            raise PortError(_explain_claim(self._path, exc)) from exc
        return bool(modes & _MODE_TRISTATE)

    # The interface of every port: `base` has the contracts

    def read_data(self) -> int:
        return self._read(IOCTLS.PPRDATA)

    def read_status(self) -> int:
        return self._read(IOCTLS.PPRSTATUS) & _STATUS_LINES

    def read_control(self) -> int:
        return self._read(IOCTLS.PPRCONTROL) & _CONTROL_LINES | CONTROL_INTERRUPT_ENABLE | self._direction

    def write_data(self, value: int) -> int:
        self._call(IOCTLS.PPWDATA, bytes((value,)))
        return self._monotonic_ns()

    def write_control(self, value: int) -> int:
        # Never both ends at once on the data lines: they are let go of before the control lines say so, and driven
        # again only after.
        direction = value & CONTROL_DIRECTION_INPUT if self.is_bidirectional else 0
        if direction > self._direction:
            self._turn(direction)
        self._call(IOCTLS.PPWCONTROL, bytes((value & _CONTROL_LINES,)))
        if direction < self._direction:
            self._turn(direction)
        return self._monotonic_ns()

    def set_interrupt_enable(self, enable: bool) -> None:
        return

    def fileno(self) -> int:
        return self._fd

    def take_interrupts(self) -> int:
        return int(_INT.unpack(self._call(IOCTLS.PPCLRIRQ, bytes(_INT.size)))[0])

    def check_present(self) -> None:
        try:
            is_there = _identity(os.stat(self._path)) == self._node and _is_known(self._node[-1])
        except FileNotFoundError:
            is_there = False
        except OSError as exc:
            raise PortError(f"{self._path}: {exc.strerror}") from exc
        if not is_there:
            raise PortGoneError(f"{self._path} is gone: the device was unplugged, or its driver unloaded")

    def close(self) -> None:
        if self._fd < 0:
            return
        fd, self._fd = self._fd, -1
        try:
            if self._direction:
                self._ioctl(fd, IOCTLS.PPDATADIR, _INT.pack(0))
            self._ioctl(fd, IOCTLS.PPRELEASE, b"")
        except OSError:
            pass  # it is gone; closing gives back what is left
        os.close(fd)

    # Inside

    def _turn(self, direction: int) -> None:
        self._call(IOCTLS.PPDATADIR, _INT.pack(1 if direction else 0))
        self._direction = direction

    def _read(self, request: int) -> int:
        return self._call(request, b"\0")[0]

    def _call(self, request: int, argument: bytes) -> bytes:
        try:
            return self._ioctl(self._fd, request, argument)
        except OSError as exc:
            if exc.errno in (errno.ENODEV, errno.ENXIO):
                raise PortGoneError(f"{self._path} is gone: {exc.strerror}") from exc
            raise PortError(f"{self._path}: {exc.strerror or exc}") from exc


def _identity(stat: os.stat_result) -> tuple[int, int, int]:
    """A node made anew for the same device is another one."""
    return stat.st_dev, stat.st_ino, stat.st_rdev


def _is_known(device: int) -> bool:
    """Whether the kernel has this device; a node that was made by hand, as in a container, outlives it."""
    number = f"{os.major(device)}:{os.minor(device)}"
    return not _CHARACTER_DEVICES.is_dir() or (_CHARACTER_DEVICES / number).exists()


def _explain_open(path: str, error: OSError) -> str:
    if error.errno in (errno.ENOENT, errno.ENXIO, errno.ENODEV):
        return (
            f"{path}: no such device; load the drivers (modprobe -a parport_pc ppdev), then look for /dev/parport*; "
            "USB adapters for printers are no parallel ports"
        )
    if error.errno == errno.EACCES:
        return f"{path}: permission denied; the daemon's user must be in the group lp (usermod -aG lp USER)"
    if error.errno == errno.EPERM:
        return f"{path}: not permitted; the unit's sandbox must allow it (DeviceAllow=char-ppdev rw)"
    return f"{path}: cannot be opened: {error.strerror}"


def _explain_claim(path: str, error: OSError) -> str:
    if error.errno == errno.ENODEV:
        return f"{path}: no port behind this node; load its driver (modprobe parport_pc)"
    if error.errno in (errno.ENOTTY, errno.EINVAL):  # EINVAL: /dev/lp0
        return f"{path}: not a parallel port of ppdev; use a /dev/parportN"
    if error.errno in (errno.ENXIO, errno.EBUSY, errno.EAGAIN):
        return _explain_busy(path, _holders(path))
    return f"{path}: cannot be claimed: {error.strerror}"


def _explain_busy(path: str, holders: list[str]) -> str:
    if "lp" in holders:
        return (
            f"{path}: busy: the printer driver lp holds the port; unload it (modprobe -r lp) and keep it away "
            "(echo blacklist lp > /etc/modprobe.d/lptd.conf)"
        )
    if any(name.startswith("ppdev") for name in holders):
        return (
            f"{path}: busy: another program holds the port; find it (as root: fuser -v {path}) and end it, "
            "then the daemon takes the port"
        )
    who = f"the driver {', '.join(holders)}" if holders else "another driver or program"
    return f"{path}: busy: {who} holds the port; end it, then the daemon takes the port"


def _holders(path: str) -> list[str]:
    """The drivers that are registered with the port, as sysfs names them; empty where it does not tell."""
    port = os.path.basename(os.path.realpath(path))
    try:
        links = {entry.name: entry.resolve().parent.name for entry in _PARPORT_DEVICES.iterdir()}
    except OSError:
        return []
    return sorted({name.partition(".")[0] for name, parent in links.items() if parent == port and name != port})
