"""Opening a device that may hang: the caller is freed in time, and nothing that comes late is left open."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import trio

from lpt_service.config import PortConfig
from lpt_service.port.ppdev import PpdevPort
from lpt_service.port.simulated import SimulatedPort
from lpt_service.protocol.errors import PortError
from lpt_service.server import port_opener
from lpt_service.server.port_opener import PortOpener, opener_of
from tests.server.fakes import BOUND_S


class Device:
    """Opens when it is let."""

    def __init__(self) -> None:
        self.may_open = threading.Event()
        self.attempts = 0
        self.port = SimulatedPort()
        self.closed = threading.Event()
        self.port.close = self.closed.set  # type: ignore[method-assign]

    def open(self) -> SimulatedPort:
        self.attempts += 1
        assert self.may_open.wait(BOUND_S)
        return self.port


@pytest.fixture
def device() -> Device:
    return Device()


@pytest.fixture(autouse=True)
def devices_may_be_slow() -> Iterator[None]:
    """So may be threads, on a busy machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(port_opener, "OPEN_TIMEOUT_S", BOUND_S)
        patch.setattr(port_opener, "CLOSE_TIMEOUT_S", BOUND_S)
        yield


async def test_a_port_that_opens(device: Device) -> None:
    device.may_open.set()
    opener = PortOpener("some", device.open, may_sleep=True)
    assert await opener.open() is device.port
    assert not device.closed.is_set()
    await opener.close(device.port)
    assert device.closed.is_set()


async def test_an_attempt_that_hangs_frees_its_caller_and_is_not_made_twice(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(port_opener, "OPEN_TIMEOUT_S", 0.05)
    opener = PortOpener("some", device.open, may_sleep=True)
    with pytest.raises(PortError, match=r"hangs in the kernel for more than 0\.05 s"):
        await opener.open()
    with pytest.raises(PortError, match="an earlier attempt to open it still hangs"):
        await opener.open()
    device.may_open.set()
    await trio.to_thread.run_sync(device.closed.wait, BOUND_S)
    assert device.closed.is_set(), "the port that came late was left open"
    assert device.attempts == 1


async def test_a_caller_who_is_cancelled_leaves_nothing_open(device: Device) -> None:
    opener = PortOpener("some", device.open, may_sleep=True)
    with trio.move_on_after(0.02):
        await opener.open()
    device.may_open.set()
    await trio.to_thread.run_sync(device.closed.wait, BOUND_S)
    assert device.closed.is_set()


async def test_what_opening_raises_is_raised(device: Device) -> None:
    def refuse() -> SimulatedPort:
        raise PortError("busy")

    for may_sleep in (True, False):
        with pytest.raises(PortError, match="busy"):
            await PortOpener("some", refuse, may_sleep=may_sleep).open()


async def test_a_close_that_hangs_frees_its_caller(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(port_opener, "CLOSE_TIMEOUT_S", 0.05)
    let_go = threading.Event()

    def hang() -> None:
        let_go.wait(BOUND_S)
        device.closed.set()

    device.port.close = hang  # type: ignore[method-assign]
    await PortOpener("some", device.open, may_sleep=True).close(device.port)
    assert not device.closed.is_set()
    let_go.set()


def test_the_device_of_a_configuration_says_which_kind() -> None:
    assert opener_of(PortConfig(), lambda: 0).kind == SimulatedPort.kind
    assert opener_of(PortConfig(device="/dev/parport0"), lambda: 0).kind == PpdevPort.kind


async def test_a_real_port_that_is_not_there_is_told(tmp_path: object) -> None:
    with pytest.raises(PortError, match="no such device; load the drivers"):
        await opener_of(PortConfig(device=f"{tmp_path}/parport9"), lambda: 0).open()
