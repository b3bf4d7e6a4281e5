"""ppdev without a kernel that has it: the order of what is asked, and what every refusal is told as.

What the port does on a real kernel is shown in tests/vm.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from lpt_service.port import ppdev
from lpt_service.port.ppdev import PpdevPort
from lpt_service.port.ppdev_ioctl import IOCTLS
from lpt_service.protocol.errors import PortError, PortGoneError
from tests.open_files import open_below

NAMES = {number: name for name, number in vars(IOCTLS).items()}
TRISTATE = 2


class FakeKernel:
    """Registers behind ioctls; `errors` maps the name of a request to the errno that it ends with."""

    def __init__(self, *, modes: int = 1 | TRISTATE) -> None:
        self.calls: list[str] = []
        self.errors: dict[str, int] = {}
        self.answers = {"PPGETMODES": struct.pack("i", modes), "PPCLRIRQ": struct.pack("i", 3)}
        self.registers = {"DATA": 0, "CONTROL": 0x0C, "STATUS": 0xDF}

    def __call__(self, descriptor: int, request: int, argument: bytes) -> bytes:
        os.fstat(descriptor)
        name = NAMES[request]
        self.calls.append(name if name != "PPDATADIR" else f"PPDATADIR {struct.unpack('i', argument)[0]}")
        if name in self.errors:
            raise OSError(self.errors[name], os.strerror(self.errors[name]))
        if name.startswith("PPR") and name != "PPRELEASE":
            return bytes((self.registers[name[3:]],))
        if name.startswith("PPW"):
            self.registers[name[3:]] = argument[0]
        return self.answers.get(name, argument)


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A device without sysfs; what this machine has there is none of the tests' business."""
    monkeypatch.setattr(ppdev, "_PARPORT_DEVICES", tmp_path / "devices")
    monkeypatch.setattr(ppdev, "_CHARACTER_DEVICES", tmp_path / "char")
    path = tmp_path / "parport0"
    path.touch()
    return path


@pytest.fixture
def kernel() -> FakeKernel:
    return FakeKernel()


@pytest.fixture
def port(node: Path, kernel: FakeKernel) -> Iterator[PpdevPort]:
    port = PpdevPort(str(node), ioctl=kernel)
    kernel.calls.clear()
    yield port
    port.close()


def test_the_port_is_claimed_exclusively_and_given_back(node: Path, kernel: FakeKernel) -> None:
    """PPEXCL takes effect only before the first PPCLAIM; PPGETMODES tells a node without a port from a busy one."""
    port = PpdevPort(str(node), ioctl=kernel)
    assert kernel.calls == ["PPGETMODES", "PPEXCL", "PPCLAIM", "PPCLRIRQ"]
    assert port.is_bidirectional
    assert (port.kind, port.can_disable_interrupt) == ("ppdev", False)
    descriptor = port.fileno()
    port.close()
    port.close()
    assert kernel.calls[4:] == ["PPRELEASE"]
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_registers(port: PpdevPort, kernel: FakeKernel) -> None:
    """Bits that mean nothing are 0, the bits that ppdev hides are there."""
    assert port.read_status() == 0xD8
    kernel.registers["CONTROL"] = 0xCC
    assert port.read_control() == 0x1C
    port.write_data(0x5A)
    assert port.read_data() == 0x5A
    port.write_control(0xFF & ~0x20)
    assert kernel.registers["CONTROL"] == 0x0F
    assert port.take_interrupts() == 3
    assert "PPNEGOT" not in NAMES.values()


def test_the_data_lines_are_let_go_of_first_and_driven_last(port: PpdevPort, kernel: FakeKernel) -> None:
    port.write_control(0x2E)
    assert port.read_control() & 0x20
    port.write_control(0x2C)
    port.write_control(0x0C)
    assert not port.read_control() & 0x20
    asked = [call for call in kernel.calls if call != "PPRCONTROL"]
    assert asked == ["PPDATADIR 1", "PPWCONTROL", "PPWCONTROL", "PPWCONTROL", "PPDATADIR 0"]


def test_lines_are_outputs_again_when_the_port_is_given_back(node: Path, kernel: FakeKernel) -> None:
    port = PpdevPort(str(node), ioctl=kernel)
    port.write_control(0x20)
    port.close()
    assert kernel.calls[-2:] == ["PPDATADIR 0", "PPRELEASE"]


def test_a_port_whose_data_lines_cannot_be_turned(node: Path) -> None:
    kernel = FakeKernel(modes=1)
    port = PpdevPort(str(node), ioctl=kernel)
    assert not port.is_bidirectional
    port.write_control(0x2C)
    assert not port.read_control() & 0x20
    assert not [call for call in kernel.calls if call.startswith("PPDATADIR")]
    port.close()


@pytest.mark.parametrize("number", [errno.ENODEV, errno.ENXIO])
def test_a_device_that_the_kernel_says_is_gone(port: PpdevPort, kernel: FakeKernel, number: int) -> None:
    kernel.errors = dict.fromkeys(("PPRSTATUS", "PPWDATA", "PPCLRIRQ", "PPRELEASE"), number)
    for access in (port.read_status, lambda: port.write_data(1), port.take_interrupts):
        with pytest.raises(PortGoneError, match="parport0 is gone"):
            access()


def test_an_access_that_fails_otherwise_leaves_the_port(port: PpdevPort, kernel: FakeKernel) -> None:
    kernel.errors["PPWDATA"] = errno.EIO
    with pytest.raises(PortError, match="Input/output error") as caught:
        port.write_data(1)
    assert not isinstance(caught.value, PortGoneError)
    del kernel.errors["PPWDATA"]
    port.write_data(1)


def test_a_node_that_is_gone_or_another_means_that_the_device_is_gone(port: PpdevPort, node: Path) -> None:
    port.check_present()
    node.rename(node.with_name("was"))
    with pytest.raises(PortGoneError, match="unplugged"):
        port.check_present()
    node.touch()
    with pytest.raises(PortGoneError, match="unplugged"):
        port.check_present()


def test_a_node_that_outlives_its_device(port: PpdevPort, node: Path, tmp_path: Path) -> None:
    (tmp_path / "char/0:0").mkdir(parents=True)  # a file is no device
    port.check_present()
    (tmp_path / "char/0:0").rmdir()
    with pytest.raises(PortGoneError, match="unplugged"):
        port.check_present()


def refusal(node: Path, kernel: FakeKernel) -> str:
    with pytest.raises(PortError) as caught:
        PpdevPort(str(node), ioctl=kernel)
    assert open_below(node.parent) == [], "the descriptor was not closed"
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(f"{node}: ")
    return text.removeprefix(f"{node}: ")


def test_what_is_said_of_a_node_that_is_not_there(node: Path, kernel: FakeKernel) -> None:
    node.unlink()
    assert refusal(node, kernel).startswith("no such device; load the drivers (modprobe -a parport_pc ppdev)")


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (errno.EACCES, "permission denied; the daemon's user must be in the group lp"),
        (errno.EPERM, "not permitted; the unit's sandbox must allow it"),
        (errno.ENXIO, "no such device"),
        (errno.EMFILE, "cannot be opened: Too many open files"),
    ],
)
def test_what_is_said_of_a_node_that_cannot_be_opened(
    node: Path, kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch, number: int, text: str
) -> None:
    def refuse(*_arguments: object) -> int:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr("os.open", refuse)
        with pytest.raises(PortError) as caught:
            PpdevPort(str(node), ioctl=kernel)
    assert str(caught.value).startswith(f"{node}: {text}")


@pytest.mark.parametrize(
    ("request_", "number", "text"),
    [
        ("PPGETMODES", errno.ENODEV, "no port behind this node; load its driver (modprobe parport_pc)"),
        ("PPGETMODES", errno.ENOTTY, "not a parallel port of ppdev; use a /dev/parportN"),
        ("PPGETMODES", errno.EINVAL, "not a parallel port of ppdev; use a /dev/parportN"),
        ("PPCLAIM", errno.EIO, "cannot be claimed: Input/output error"),
        ("PPCLRIRQ", errno.EIO, "cannot be claimed: Input/output error"),
    ],
)
def test_what_is_said_of_a_port_that_cannot_be_claimed(
    node: Path, kernel: FakeKernel, request_: str, number: int, text: str
) -> None:
    kernel.errors[request_] = number
    assert refusal(node, kernel) == text


@pytest.mark.parametrize(
    ("holders", "text"),
    [
        ({"lp.0": "parport0", "ppdev1.0": "parport1"}, "busy: the printer driver lp holds the port; unload it"),
        ({"ppdev0.0": "parport0", "lp.1": "parport1"}, "busy: another program holds the port; find it"),
        ({"pps_parport.0": "parport0"}, "busy: the driver pps_parport holds the port; end it"),
        ({}, "busy: another driver or program holds the port; end it"),
        (None, "busy: another driver or program holds the port; end it"),
    ],
)
def test_a_busy_port_is_told_with_who_holds_it(
    node: Path,
    kernel: FakeKernel,
    tmp_path: Path,
    holders: dict[str, str] | None,
    text: str,
) -> None:
    devices = tmp_path / "devices"
    is_known = bool(holders)
    if holders is not None:
        devices.mkdir()
        for name, port in holders.items():
            target = tmp_path / "sys" / port / name
            target.mkdir(parents=True)
            (devices / name).symlink_to(target)
    kernel.errors["PPCLAIM"] = errno.ENXIO
    assert refusal(node, kernel).startswith(text)
    assert ("PPCLAIM" in kernel.calls) is not is_known, "a refused claim leaves its traces in the kernel's log"
