"""One daemon a module, as `lptd serve --simulate` starts it; each test must leave nothing behind in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.e2e.client import DATA, RawClient, interrupts
from tests.e2e.daemons import DaemonProcess, eventually, is_clean, serving

Connect = Callable[..., RawClient]


@pytest.fixture(scope="module")
def daemon() -> Iterator[DaemonProcess]:
    with serving("--simulate", "--listen", "lpt://127.0.0.1:0") as daemon:
        yield daemon


@pytest.fixture
def connect(daemon: DaemonProcess) -> Iterator[Connect]:
    """Makes clients that have said hello; when they are gone, so is every trace of them."""
    clients: list[RawClient] = []

    def connect_one(**keys: Any) -> RawClient:
        clients.append(daemon.connect(**keys))
        return clients[-1]

    yield connect_one
    for client in clients:
        client.close()
    eventually(lambda: is_clean(daemon.status()), "a session has left something behind")
    last = daemon.connect()
    last.connect_interrupt()
    last.disconnect_interrupt()  # the source lingers no longer
    last.close()


class Witness:
    """A client that has done nothing wrong: it listens, and must notice nothing of what others do."""

    def __init__(self, connect: Connect) -> None:
        self.client = connect(client="witness")
        self.client.connect_interrupt()
        self.client.heard()

    def check(self, connect: Connect) -> None:
        """It was told nothing; pings are answered; the port can be had; interrupts arrive."""
        assert self.client.heard() == []
        owner = connect(client="owner")
        owner.allocate()  # waits, perhaps, until the daemon sees that the test's own clients have gone
        owner.raise_interrupts(1)
        seq, _, count, *_, kind = self.client.notification("interrupt")
        assert (count, kind) == (1, 0)
        owner.write(DATA, 0)
        owner.close()
        assert interrupts(self.client.heard()) == []
        assert seq >= 0


@pytest.fixture
def witness(connect: Connect) -> Iterator[Witness]:
    """Somebody else, who is checked at the end of the test."""
    witness = Witness(connect)
    yield witness
    witness.check(connect)
