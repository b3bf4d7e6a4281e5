"""The contract of `ParallelPort`, for every port kind. Nothing here knows which one it has."""

import itertools
import select
import time
from collections.abc import Callable

import pytest

from lpt_service.port.base import ParallelPort
from lpt_service.protocol.errors import PortGoneError
from lpt_service.protocol.ioctl import (
    CONTROL_AUTOFD,
    CONTROL_DIRECTION_INPUT,
    CONTROL_INIT,
    CONTROL_INTERRUPT_ENABLE,
    CONTROL_SELECT_IN,
    CONTROL_STROBE,
)
from tests.port.port_kinds import Bench, Peripheral

CONTROL_LINE_BITS = 0x0F
IDLE_STATUS = 0xD8  # nError, Select and nAck high; Busy is low and shown inverted


def is_readable(port: ParallelPort) -> bool:
    """Whether the port's descriptor says that there is something to take."""
    return bool(select.select([port], [], [], 0)[0])


def enable_interrupts(port: ParallelPort) -> None:
    """Let interrupts through, and forget any that came before."""
    port.set_interrupt_enable(True)
    port.take_interrupts()


# The beginning


def test_the_control_lines_begin_as_after_a_reset_and_the_data_lines_as_outputs(port: ParallelPort) -> None:
    assert port.read_control() & ~CONTROL_INTERRUPT_ENABLE == CONTROL_INIT | CONTROL_SELECT_IN


# Data


def test_data_comes_out_on_the_lines_and_reads_back(port: ParallelPort, peripheral: Peripheral) -> None:
    for value in range(256):
        port.write_data(value)
        assert port.read_data() == value
        levels = peripheral.lines()
        assert sum(levels[f"D{bit}"] << bit for bit in range(8)) == value


def test_a_data_write_touches_no_other_register(port: ParallelPort) -> None:
    status, control = port.read_status(), port.read_control()
    for value in (0x00, 0xFF, 0x55, 0xAA):
        port.write_data(value)
        assert (port.read_status(), port.read_control()) == (status, control)


def test_writes_return_the_monotonic_clock_right_after_them(port: ParallelPort) -> None:
    writes: list[Callable[[int], int]] = [port.write_data, port.write_control]
    for write in writes:
        before = time.monotonic_ns()
        written = write(0x0C)
        assert before <= written <= time.monotonic_ns()


# Status


@pytest.mark.parametrize(
    ("line", "bit", "is_inverted"),
    [
        ("nError", 0x08, False),
        ("Select", 0x10, False),
        ("PaperEnd", 0x20, False),
        ("nAck", 0x40, False),
        ("Busy", 0x80, True),
    ],
)
def test_each_status_line_has_its_bit(
    port: ParallelPort, peripheral: Peripheral, line: str, bit: int, is_inverted: bool
) -> None:
    for is_high in (True, False, True):
        peripheral.set_status_lines(**{line: is_high})
        assert port.read_status() & bit == (bit if is_high != is_inverted else 0)
        assert port.read_status() & ~bit == IDLE_STATUS & ~bit


def test_every_combination_of_status_lines(port: ParallelPort, peripheral: Peripheral) -> None:
    for n_error, select_, paper_end, n_ack, busy in itertools.product((False, True), repeat=5):
        peripheral.set_status_lines(nError=n_error, Select=select_, PaperEnd=paper_end, nAck=n_ack, Busy=busy)
        register = n_error << 3 | select_ << 4 | paper_end << 5 | n_ack << 6 | (not busy) << 7
        assert port.read_status() == register  # bits 0 to 2 are 0


# Control


def test_control_bits_drive_their_lines(port: ParallelPort, peripheral: Peripheral) -> None:
    for value in range(16):
        port.write_control(value)
        assert port.read_control() & CONTROL_LINE_BITS == value
        levels = peripheral.lines()
        assert levels["nStrobe"] is not bool(value & CONTROL_STROBE)
        assert levels["nAutoFd"] is not bool(value & CONTROL_AUTOFD)
        assert levels["nInit"] is bool(value & CONTROL_INIT)
        assert levels["nSelectIn"] is not bool(value & CONTROL_SELECT_IN)


@pytest.mark.parametrize("value", [0x00, 0x0C, CONTROL_INTERRUPT_ENABLE, 0xFF])
@pytest.mark.parametrize("enable", [False, True])
def test_a_control_write_leaves_interrupt_enable_as_it_is(port: ParallelPort, value: int, enable: bool) -> None:
    port.set_interrupt_enable(enable)
    before = port.read_control() & CONTROL_INTERRUPT_ENABLE
    port.write_control(value)
    assert port.read_control() & CONTROL_INTERRUPT_ENABLE == before


def test_interrupt_enable_is_control_bit_4_where_it_can_be_set(port: ParallelPort) -> None:
    port.write_control(0x0C)
    for enable in (True, True, False, False, True):
        port.set_interrupt_enable(enable)
        expected = enable or not port.can_disable_interrupt
        assert port.read_control() == (0x1C if expected else 0x0C)


def test_bits_6_and_7_of_control_do_not_exist(port: ParallelPort) -> None:
    port.write_control(0xFF)
    assert port.read_control() & 0xC0 == 0


# Direction


def test_direction_input_reads_what_the_peripheral_drives(port: ParallelPort, peripheral: Peripheral) -> None:
    if not port.is_bidirectional:
        pytest.skip("this port cannot")
    port.write_data(0x00)
    port.write_control(CONTROL_DIRECTION_INPUT)
    assert port.read_control() & CONTROL_DIRECTION_INPUT
    for value in (0x00, 0xA5, 0xFF):
        peripheral.drive_data(value)
        assert port.read_data() == value
    peripheral.drive_data(None)
    assert port.read_data() == 0xFF


def test_the_latch_outlives_direction_input(port: ParallelPort, peripheral: Peripheral) -> None:
    if not port.is_bidirectional:
        pytest.skip("this port cannot")
    port.write_data(0x12)
    port.write_control(CONTROL_DIRECTION_INPUT)
    port.write_control(0)
    assert port.read_data() == 0x12
    port.write_control(CONTROL_DIRECTION_INPUT)
    port.write_data(0x34)
    peripheral.drive_data(0xA5)
    assert port.read_data() == 0xA5
    peripheral.drive_data(None)
    port.write_control(0)
    assert port.read_data() == 0x34


def test_an_output_only_port_has_no_direction_bit(port: ParallelPort, peripheral: Peripheral) -> None:
    if port.is_bidirectional:
        pytest.skip("this port can")
    port.write_data(0x12)
    port.write_control(CONTROL_DIRECTION_INPUT)
    assert port.read_control() & CONTROL_DIRECTION_INPUT == 0
    assert port.read_data() == 0x12


# Interrupts


def test_no_interrupt_waits_in_the_beginning(port: ParallelPort) -> None:
    assert not is_readable(port)
    assert port.take_interrupts() == 0
    enable_interrupts(port)
    assert not is_readable(port)


def test_an_interrupt_makes_the_descriptor_readable_until_it_is_taken(
    port: ParallelPort, peripheral: Peripheral
) -> None:
    enable_interrupts(port)
    for _ in range(3):
        peripheral.raise_interrupt()
        assert is_readable(port)
        assert is_readable(port)
        assert port.take_interrupts() == 1
        assert not is_readable(port)
        assert port.take_interrupts() == 0


def test_interrupts_that_were_not_taken_add_up(port: ParallelPort, peripheral: Peripheral) -> None:
    enable_interrupts(port)
    peripheral.raise_interrupt()
    peripheral.raise_interrupt(3)
    assert port.take_interrupts() == 4


def test_an_interrupt_is_the_rising_edge_of_nack_and_no_other_edge(port: ParallelPort, peripheral: Peripheral) -> None:
    enable_interrupts(port)
    peripheral.set_status_lines(nAck=True)  # as it was
    peripheral.set_status_lines(nAck=False)
    assert not is_readable(port)
    peripheral.set_status_lines(nAck=False)
    peripheral.set_status_lines(nError=False, Select=False, PaperEnd=True, Busy=True)
    peripheral.set_status_lines(nError=True, Select=True, PaperEnd=False, Busy=False)
    assert not is_readable(port)
    peripheral.set_status_lines(nAck=True)
    assert is_readable(port)
    assert port.take_interrupts() == 1


def test_nothing_comes_while_interrupts_are_disabled(port: ParallelPort, peripheral: Peripheral) -> None:
    if not port.can_disable_interrupt:
        pytest.skip("this port cannot")
    enable_interrupts(port)
    port.set_interrupt_enable(False)
    peripheral.raise_interrupt(2)
    assert not is_readable(port)
    port.set_interrupt_enable(True)  # does not bring back what came before, nor is it an edge
    assert not is_readable(port)
    assert port.take_interrupts() == 0
    peripheral.raise_interrupt()
    assert port.take_interrupts() == 1


def test_what_came_before_disabling_can_still_be_taken(port: ParallelPort, peripheral: Peripheral) -> None:
    enable_interrupts(port)
    peripheral.raise_interrupt()
    port.set_interrupt_enable(False)
    assert port.take_interrupts() == 1


def test_interrupts_that_cannot_be_disabled_come_all_the_time(port: ParallelPort, peripheral: Peripheral) -> None:
    if port.can_disable_interrupt:
        pytest.skip("this port can")
    peripheral.raise_interrupt()
    assert port.take_interrupts() == 1
    port.set_interrupt_enable(False)
    peripheral.raise_interrupt()
    assert port.take_interrupts() == 1


def test_writes_do_not_disturb_waiting_interrupts(port: ParallelPort, peripheral: Peripheral) -> None:
    enable_interrupts(port)
    peripheral.raise_interrupt()
    port.write_data(0xFF)
    port.write_control(0x0F)
    port.read_status()
    assert is_readable(port)
    assert port.take_interrupts() == 1


# The end

ACCESSES = pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("read_data", ()),
        ("read_status", ()),
        ("read_control", ()),
        ("write_data", (0xFF,)),
        ("write_control", (0x0F,)),
        ("set_interrupt_enable", (True,)),
        ("set_interrupt_enable", (False,)),
        ("take_interrupts", ()),
    ],
)


@ACCESSES
def test_once_the_device_is_gone_an_access_says_so_or_does_nothing(
    bench: Bench, method: str, arguments: tuple[int, ...]
) -> None:
    access = getattr(bench.port, method)
    bench.peripheral.unplug()
    for _ in range(2):
        if bench.tells_when_gone:
            with pytest.raises(PortGoneError, match=r"\w"):
                access(*arguments)
        else:
            access(*arguments)


def test_reads_of_a_device_that_is_gone_give_0_where_they_do_not_say_so(bench: Bench) -> None:
    if bench.tells_when_gone:
        pytest.skip("this port says so")
    bench.port.write_data(0xFF)
    bench.peripheral.unplug()
    bench.port.write_data(0x55)
    bench.port.write_control(0x0F)
    assert (bench.port.read_data(), bench.port.read_status()) == (0, 0)
    assert bench.port.read_control() & CONTROL_LINE_BITS == 0


def test_asking_for_the_device_tells_when_it_is_gone(port: ParallelPort, peripheral: Peripheral) -> None:
    port.check_present()
    peripheral.unplug()
    for _ in range(2):
        with pytest.raises(PortGoneError, match=r"\w"):
            port.check_present()


def test_the_descriptor_once_the_device_is_gone(bench: Bench) -> None:
    port = bench.port
    assert not is_readable(port)
    bench.peripheral.unplug()
    assert is_readable(port) is bench.tells_when_gone
    if bench.tells_when_gone:
        with pytest.raises(PortGoneError):
            port.take_interrupts()
        assert is_readable(port)


def test_interrupts_from_before_the_device_went_are_there_where_it_does_not_say_so(bench: Bench) -> None:
    if bench.tells_when_gone:
        pytest.skip("this port says so")
    enable_interrupts(bench.port)
    bench.peripheral.raise_interrupt(3)
    bench.peripheral.unplug()
    assert is_readable(bench.port)
    assert bench.port.take_interrupts() == 3
    assert not is_readable(bench.port)


def test_the_descriptor_stays_the_same_until_close(port: ParallelPort, peripheral: Peripheral) -> None:
    descriptor = port.fileno()
    assert descriptor >= 0
    enable_interrupts(port)
    peripheral.raise_interrupt()
    port.take_interrupts()
    peripheral.unplug()
    assert port.fileno() == descriptor


def test_lines_stay_as_they_are_when_the_port_is_given_back(port: ParallelPort, peripheral: Peripheral) -> None:
    port.write_data(0xA5)
    port.write_control(CONTROL_STROBE | CONTROL_SELECT_IN)
    before = peripheral.lines()
    port.close()
    assert peripheral.lines() == before


def test_close_never_raises(port: ParallelPort, peripheral: Peripheral) -> None:
    peripheral.unplug()
    port.close()
    port.close()
