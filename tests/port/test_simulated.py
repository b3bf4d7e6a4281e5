"""What only the simulated port has: reset state, loop-back plug, the peripheral's side, failures on demand."""

import fcntl
import os
import select
from collections.abc import Iterator

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from lpt_service.port.simulated import CONTROL_LINES, DATA_LINES, STATUS_LINES, SimulatedPort
from lpt_service.protocol.errors import PortError, PortGoneError

# The plug as the contract has it: line written → line read.
PLUG = {"D0": "nError", "D1": "Select", "D2": "PaperEnd", "D3": "nAck", "D4": "Busy"}
D3 = 0x08
INPUT = 0x20


@pytest.fixture
def port() -> Iterator[SimulatedPort]:
    port = SimulatedPort()
    yield port
    port.close()


@pytest.fixture
def plugged() -> Iterator[SimulatedPort]:
    """A port with the loop-back plug in and interrupts enabled."""
    port = SimulatedPort(loopback=True)
    port.set_interrupt_enable(True)
    yield port
    port.close()


def is_readable(port: SimulatedPort) -> bool:
    return bool(select.select([port], [], [], 0)[0])


# Lines


def test_reset_state(port: SimulatedPort) -> None:
    assert (port.kind, port.is_bidirectional, port.can_disable_interrupt) == ("simulated", True, True)
    assert (port.read_data(), port.read_status(), port.read_control()) == (0x00, 0xD8, 0x0C)
    assert {name for name, is_high in port.lines.items() if is_high} == {
        *("nError", "Select", "nAck"),
        *("nStrobe", "nAutoFd", "nInit"),  # not nSelectIn: bit 3 is set and inverted
    }


def test_reset_state_like_ppdev() -> None:
    port = SimulatedPort(can_disable_interrupt=False)
    assert port.read_control() == 0x1C
    port.set_interrupt_enable(False)
    assert port.read_control() == 0x1C
    port.close()


def test_reset_state_with_the_plug() -> None:
    port = SimulatedPort(loopback=True, can_disable_interrupt=False)
    assert (port.read_data(), port.read_status(), port.read_control()) == (0x00, 0x80, 0x1C)
    assert not is_readable(port)
    port.close()


def test_the_17_lines_are_named() -> None:
    assert len(DATA_LINES) + len(STATUS_LINES) + len(CONTROL_LINES) == 17
    port = SimulatedPort()
    assert list(port.lines) == [*DATA_LINES, *STATUS_LINES, *CONTROL_LINES]
    port.close()


def test_only_status_lines_can_be_driven(port: SimulatedPort) -> None:
    with pytest.raises(ValueError, match="status lines are nError, Select, PaperEnd, nAck, Busy; got nStrobe"):
        port.set_status_lines(nStrobe=False)
    assert port.lines["nStrobe"]


# The loop-back plug


@pytest.mark.parametrize(("written", "read"), PLUG.items())
def test_the_plug_joins_two_lines(plugged: SimulatedPort, written: str, read: str) -> None:
    plugged.write_data(0)
    assert not any(plugged.lines[line] for line in PLUG.values())
    plugged.write_data(DATA_LINES[written])
    assert [line for line in PLUG.values() if plugged.lines[line]] == [read]


@pytest.mark.parametrize(
    ("data", "status"),
    [(0x00, 0x80), (0x01, 0x88), (0x02, 0x90), (0x04, 0xA0), (0x08, 0xC0), (0x10, 0x00), (0x1F, 0x78), (0xE0, 0x80)],
)
def test_what_is_written_comes_back_in_the_status_register(plugged: SimulatedPort, data: int, status: int) -> None:
    plugged.write_data(data)
    assert plugged.read_status() == status


def test_an_owner_raises_an_interrupt_by_writing(plugged: SimulatedPort) -> None:
    plugged.write_data(D3)
    assert is_readable(plugged)
    plugged.write_data(D3 | 1)  # stays high
    plugged.write_data(0)
    plugged.write_data(D3)
    assert plugged.take_interrupts() == 2
    assert not is_readable(plugged)
    plugged.set_interrupt_enable(False)
    plugged.write_data(0)
    plugged.write_data(D3)
    assert plugged.take_interrupts() == 0


def test_with_direction_input_nobody_drives_the_plug(plugged: SimulatedPort) -> None:
    plugged.write_data(0)
    plugged.write_control(INPUT)
    assert plugged.read_data() == 0xFF
    assert plugged.read_status() == 0x78
    assert plugged.take_interrupts() == 1  # nAck was pulled up
    plugged.write_data(0)
    assert plugged.read_status() == 0x78
    plugged.peripheral_data = 0x02  # a source on the same wires
    assert plugged.peripheral_data == 0x02
    assert plugged.read_data() == 0x02
    assert plugged.read_status() == 0x90
    plugged.write_control(0)
    assert plugged.read_status() == 0x80


def test_the_plug_leaves_no_room_for_a_peripheral(plugged: SimulatedPort) -> None:
    with pytest.raises(ValueError, match="loop-back plug"):
        plugged.set_status_lines(nError=True)


@pytest.mark.parametrize("resting", [0x00, D3])
def test_raise_interrupt_works_with_the_plug_in(plugged: SimulatedPort, resting: int) -> None:
    plugged.write_data(resting)
    plugged.take_interrupts()
    status = plugged.read_status()
    plugged.raise_interrupt(5)
    assert plugged.take_interrupts() == 5
    assert plugged.read_status() == status


# The descriptor


def test_the_descriptor_neither_blocks_nor_is_inherited(port: SimulatedPort) -> None:
    assert not os.get_blocking(port.fileno())
    assert fcntl.fcntl(port.fileno(), fcntl.F_GETFD) & fcntl.FD_CLOEXEC


def test_a_million_interrupts_are_one_number(port: SimulatedPort) -> None:
    port.set_interrupt_enable(True)
    port.raise_interrupt(1_000_000)
    port.raise_interrupt(0)
    assert port.take_interrupts() == 1_000_000


def test_close_gives_the_descriptor_back(port: SimulatedPort) -> None:
    descriptor = port.fileno()
    port.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
    assert port.fileno() == -1


def test_a_closed_port_touches_no_descriptor(port: SimulatedPort) -> None:
    port.set_interrupt_enable(True)
    descriptor = port.fileno()
    port.close()
    innocent = os.eventfd(0, os.EFD_NONBLOCK)
    somebody_elses = {innocent, os.dup2(innocent, descriptor)}  # the number is in use again, perhaps by itself
    try:
        port.raise_interrupt()
        port.set_status_lines(nAck=False)
        port.set_status_lines(nAck=True)
        port.unplug()
        port.close()
        with pytest.raises(BlockingIOError):
            os.eventfd_read(descriptor)
    finally:
        for number in somebody_elses:
            os.close(number)


def test_a_closed_port_is_not_a_port_that_went_away(port: SimulatedPort) -> None:
    port.close()
    with pytest.raises(PortError, match="closed") as caught:
        port.read_data()
    assert not isinstance(caught.value, PortGoneError)


# Failures on demand


def test_unplugging_ends_interrupts(port: SimulatedPort) -> None:
    port.set_interrupt_enable(True)
    port.unplug()
    port.unplug()
    port.raise_interrupt()
    assert os.eventfd_read(port.fileno()) == 1, "readable for the unplugging alone"


def test_some_writes_fail(port: SimulatedPort) -> None:
    port.write_data(0x55)
    port.fail_writes(2)
    with pytest.raises(PortError, match="told to fail") as caught:
        port.write_data(0xAA)
    assert not isinstance(caught.value, PortGoneError)
    assert port.read_data() == 0x55
    with pytest.raises(PortError):
        port.write_control(0x00)
    assert port.read_control() == 0x0C
    port.write_data(0xAA)
    assert port.read_data() == 0xAA


def test_all_writes_fail_until_told_otherwise(port: SimulatedPort) -> None:
    port.fail_writes()
    for _ in range(3):
        with pytest.raises(PortError):
            port.write_data(0xAA)
        with pytest.raises(PortError):
            port.set_interrupt_enable(True)
    assert port.read_control() == 0x0C
    port.fail_writes(0)
    port.write_data(0xAA)
    assert port.read_data() == 0xAA


def test_writes_return_the_clock_they_were_given() -> None:
    times = iter(range(100, 110))
    port = SimulatedPort(monotonic_ns=lambda: next(times))
    assert port.write_data(0) == 100
    assert port.write_control(0) == 101
    port.close()


# Any sequence of events, against a model that works out every wire from scratch

BYTES = st.integers(0, 255)


class WiresAndRegisters(RuleBasedStateMachine):
    """Compares the port with a naive model after every event."""

    @initialize(plug=st.booleans(), bidirectional=st.booleans(), can_disable=st.booleans())
    def set_up(self, plug: bool, bidirectional: bool, can_disable: bool) -> None:
        self.port = SimulatedPort(loopback=plug, bidirectional=bidirectional, can_disable_interrupt=can_disable)
        self.latch = 0
        self.control_bits = {2, 3} if can_disable else {2, 3, 4}
        self.has_plug = plug
        self.driven: int | None = None
        self.peripheral = {"nError": True, "Select": True, "PaperEnd": False, "nAck": True, "Busy": False}
        self.n_ack = self.status_wires()["nAck"]
        self.rising_edges = 0

    def data_wires(self) -> int:
        if 5 not in self.control_bits:
            return self.latch
        return 0xFF if self.driven is None else self.driven

    def status_wires(self) -> dict[str, bool]:
        if not self.has_plug:
            return self.peripheral
        return {read: bool(self.data_wires() & DATA_LINES[written]) for written, read in PLUG.items()}

    def look_for_edge(self) -> None:
        before, self.n_ack = self.n_ack, self.status_wires()["nAck"]
        if self.n_ack and not before and 4 in self.control_bits:
            self.rising_edges += 1

    @rule(value=BYTES)
    def write_data(self, value: int) -> None:
        self.port.write_data(value)
        self.latch = value
        self.look_for_edge()

    @rule(value=BYTES)
    def write_control(self, value: int) -> None:
        self.port.write_control(value)
        for bit in (0, 1, 2, 3, *([5] if self.port.is_bidirectional else [])):
            self.control_bits.discard(bit)
            if value >> bit & 1:
                self.control_bits.add(bit)
        self.look_for_edge()

    @rule(enable=st.booleans())
    def set_interrupt_enable(self, enable: bool) -> None:
        self.port.set_interrupt_enable(enable)
        if self.port.can_disable_interrupt:
            self.control_bits.discard(4)
            if enable:
                self.control_bits.add(4)

    @rule(value=st.none() | BYTES)
    def drive_data(self, value: int | None) -> None:
        self.port.peripheral_data = value
        self.driven = value
        self.look_for_edge()

    @rule(levels=st.dictionaries(st.sampled_from(sorted(STATUS_LINES)), st.booleans()))
    def set_status_lines(self, levels: dict[str, bool]) -> None:
        if self.has_plug:
            return
        self.port.set_status_lines(**levels)
        self.peripheral.update(levels)
        self.look_for_edge()

    @rule(count=st.integers(1, 3))
    def raise_interrupt(self, count: int) -> None:
        self.port.raise_interrupt(count)
        if 4 in self.control_bits:
            self.rising_edges += count

    @rule()
    def take_interrupts(self) -> None:
        assert is_readable(self.port) is (self.rising_edges > 0)
        assert self.port.take_interrupts() == self.rising_edges
        self.rising_edges = 0

    @invariant()
    def agrees(self) -> None:
        wires = self.status_wires()
        status = {3: wires["nError"], 4: wires["Select"], 5: wires["PaperEnd"], 6: wires["nAck"], 7: not wires["Busy"]}
        assert self.port.read_data() == self.data_wires()
        assert self.port.read_status() == sum(1 << bit for bit, is_set in status.items() if is_set)
        assert self.port.read_control() == sum(1 << bit for bit in self.control_bits)
        assert {name: self.port.lines[name] for name in wires} == wires

    def teardown(self) -> None:
        if hasattr(self, "port"):
            assert self.port.take_interrupts() == self.rising_edges
            self.port.close()


TestWiresAndRegisters = WiresAndRegisters.TestCase
TestWiresAndRegisters.settings = settings(max_examples=200, stateful_step_count=25)
