"""`PpdevPort` on a real kernel, in the guest: what no other port kind has. `test_ports.py` runs this there."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lpt_service.port.ppdev import PpdevPort
from lpt_service.protocol.errors import PortError, PortGoneError
from lpt_service.protocol.ioctl import CONTROL_INTERRUPT_ENABLE
from tests.vm import ppdev
from tests.vm.peripheral import VirtualPeripheral
from tests.vm.ppdev import PpDev

PATH = "/dev/parport1"
RESET_CONTROL = 0x0C


@pytest.fixture
def peripheral() -> Iterator[VirtualPeripheral]:
    peripheral = VirtualPeripheral()
    yield peripheral
    if peripheral.report().number != 1:
        if peripheral.report().number is not None:
            peripheral.unplug()
        assert peripheral.plug() == 1


@pytest.fixture
def port(peripheral: VirtualPeripheral) -> Iterator[PpdevPort]:
    port = PpdevPort(PATH)
    yield port
    port.close()


# What is left behind, and what is found


def test_the_claim_resets_the_control_lines_and_leaves_the_data_lines(peripheral: VirtualPeripheral) -> None:
    first = PpdevPort(PATH)
    first.write_data(0x5A)
    first.write_control(0x01)
    first.close()
    assert (peripheral.report().data, peripheral.report().control) == (0x5A, 0x01 | CONTROL_INTERRUPT_ENABLE)
    before = peripheral.report().write_count
    second = PpdevPort(PATH)
    report = peripheral.report()
    assert {write.register for write in report.writes[before - report.write_count :]} == {"control"}
    assert (report.data, report.control) == (0x5A, RESET_CONTROL | CONTROL_INTERRUPT_ENABLE)
    second.close()


def test_the_interrupt_stays_enabled_when_the_port_is_given_back(
    port: PpdevPort, peripheral: VirtualPeripheral
) -> None:
    port.close()
    before = peripheral.report().interrupts
    peripheral.raise_interrupt(5)
    assert peripheral.report().interrupts - before == 5, "the processor still takes them"
    second = PpdevPort(PATH)
    assert second.take_interrupts() == 0, "and nobody hears of them"
    second.close()


def test_lines_are_outputs_again_when_the_port_is_given_back(port: PpdevPort, peripheral: VirtualPeripheral) -> None:
    port.write_control(0x20)
    assert peripheral.report().control & 0x20
    port.close()
    assert not peripheral.report().control & 0x20


# The device goes


def test_a_node_made_by_hand_outlives_the_device(peripheral: VirtualPeripheral, tmp_path: Path) -> None:
    """As in a container, where /dev is not the kernel's."""
    node = tmp_path / "parport1"
    os.mknod(node, 0o600 | 0o020000, os.stat(PATH).st_rdev)
    port = PpdevPort(str(node))
    port.check_present()
    peripheral.unplug()
    assert node.exists()
    with pytest.raises(PortGoneError, match="unplugged"):
        port.check_present()
    port.close()
    with pytest.raises(PortError, match="no port behind this node; load its driver"):
        PpdevPort(str(node))


def test_a_card_put_in_again_is_served_under_its_name_once_the_old_port_is_closed(
    port: PpdevPort, peripheral: VirtualPeripheral
) -> None:
    peripheral.unplug()
    assert peripheral.plug() == 2
    with pytest.raises(PortGoneError):
        port.check_present()
    port.close()
    with pytest.raises(PortError, match="no such device"):
        PpdevPort(PATH)
    peripheral.unplug()
    assert peripheral.plug() == 1
    PpdevPort(PATH).close()


# Somebody else has the port


def test_a_port_that_another_program_has_is_left_alone(peripheral: VirtualPeripheral) -> None:
    """However often it is tried: nothing waits, nothing moves, nothing is added to the kernel's log."""
    with PpDev(1) as other:
        other.ioctl(ppdev.CLAIM)
        before, log = peripheral.report().write_count, kernel_log()
        for _ in range(10):
            with pytest.raises(PortError, match=f"^{PATH}: busy: another program holds the port; find it"):
                PpdevPort(PATH)
        assert (peripheral.report().write_count, kernel_log()) == (before, log)
        other.ioctl(ppdev.RELEASE)
        with pytest.raises(PortError, match="busy: another program holds the port"):
            PpdevPort(PATH)  # who has released it has it registered still
    PpdevPort(PATH).close()


def kernel_log() -> list[str]:
    """What the kernel says of parallel ports."""
    lines = subprocess.run(["dmesg"], capture_output=True, text=True, check=True).stdout.splitlines()
    return [line for line in lines if "parport" in line or "ppdev" in line]
