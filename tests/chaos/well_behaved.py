"""A client beside others that do harm, who must notice nothing of them."""

from __future__ import annotations

import time

from tests.e2e.client import DATA, FREE, Account, RawClient
from tests.e2e.daemons import DaemonProcess


class WellBehaved:
    """A client that owns, writes, raises interrupts and hears them, and must notice nothing of the others."""

    def __init__(self, daemon: DaemonProcess) -> None:
        self.client: RawClient = daemon.connect(client="well-behaved")
        self.first = self.client.connect_interrupt()
        self.account = Account()
        self.rounds = 0
        self.longest_s = 0.0

    def round(self) -> None:
        """Everything once. The client's own time-out is what it waits at the most."""
        begun = time.monotonic()
        self.client.allocate(timeout_ms=0)
        self.client.raise_interrupts(3)
        self.client.write(DATA, self.rounds % 256)
        assert self.client.read(DATA) == self.rounds % 256
        self.client.ioctl(FREE)
        self.account.add(self.client.heard())
        self.rounds += 1
        self.longest_s = max(self.longest_s, time.monotonic() - begun)

    def leave(self) -> None:
        """The account is closed: nothing was lost."""
        end = self.client.disconnect_interrupt()
        self.account.add(self.client.heard())
        assert self.account.lost == 0
        assert self.account.received == end - self.first
        assert self.account.received >= 3 * self.rounds
        self.client.close()
