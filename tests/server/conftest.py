"""For the tests of the server: a daemon, and nothing may log an error without saying so."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator

import pytest
import trio

from lpt_service.server import addresses, audit, listener_set
from lpt_service.server.addresses import Address
from lpt_service.server.daemon import Daemon
from tests.server.fakes import BOUND_S, start_daemon


@pytest.fixture(autouse=True)
def errors_logged(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """The errors that have been logged. A test that expects one clears the list."""
    errors: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            errors.append(record.getMessage())

    handler = Collector(logging.ERROR)
    logger = logging.getLogger("lpt_service")
    logger.addHandler(handler)
    yield errors
    logger.removeHandler(handler)
    assert errors == []


@pytest.fixture(autouse=True)
def disks_may_be_slow() -> Iterator[None]:
    """What is left of the audit trail is written at the stop in real time, however busy the machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(audit, "STOP_TIMEOUT_S", BOUND_S)
        yield


@pytest.fixture
def bound(monkeypatch: pytest.MonkeyPatch) -> list[socket.socket]:
    """The listening sockets that are opened from now on: of the process's others nobody knows when they are closed."""
    sockets: list[socket.socket] = []

    def bind(address: Address, *, shared: bool = False) -> socket.socket:
        sockets.append(addresses.bind(address, shared=shared))
        return sockets[-1]

    monkeypatch.setattr(listener_set, "bind", bind)
    return sockets


@pytest.fixture
async def daemon(nursery: trio.Nursery) -> Daemon:
    """A daemon on a virtual clock: the test has to ask for `autojump_clock` by itself."""
    return await start_daemon(nursery)
