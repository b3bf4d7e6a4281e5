"""A client that knows nothing but docs/protocol.md, and keeps an account of each of its interrupt routines.

Its connection may break at any byte. What it is never told, it does not assume: the account of a routine is settled
when received + lost = end_seq - first_seq, and only the daemon can tell both ends.
"""

from __future__ import annotations

from typing import Any

from trio.testing import wait_all_tasks_blocked

from lpt_service.protocol.ioctl import Ioctl
from lpt_service.protocol.messages import KIND_EVENT, KIND_MASKED, KIND_STOPPED
from lpt_service.protocol.structs import U64
from lpt_service.server.daemon import Daemon
from tests.server.fakes import request, routine
from tests.server.resuming import Client, at, come

MSGIDS = 8  # as few as that: a number is used again as soon as it may be
_CONTROL = "internal_device_control"


class Account:
    """What one routine has heard, from its connect to its disconnect."""

    def __init__(self, first_seq: int) -> None:
        self.first_seq = self.next_seq = first_seq
        self.received = self.lost = 0
        self.end_seq: int | None = None

    @property
    def is_settled(self) -> bool:
        return self.end_seq is not None and self.next_seq >= self.end_seq

    def event(self, seq: int, count: int) -> None:
        if seq + count <= self.next_seq or (self.end_seq is not None and seq >= self.end_seq):
            return
        assert seq <= self.next_seq, "a gap that nobody told of"
        self.received += seq + count - self.next_seq
        self.next_seq = seq + count

    def leap(self, next_seq: int) -> None:
        if self.end_seq is not None:
            next_seq = min(next_seq, self.end_seq)
        if next_seq > self.next_seq:
            self.lost += next_seq - self.next_seq
            self.next_seq = next_seq

    def check(self) -> None:
        assert self.received + self.lost == self.next_seq - self.first_seq
        if self.end_seq is not None:
            assert self.next_seq <= self.end_seq


class Ledger:
    """Two routines, on one session that outlives its connections.

    Attributes:
        accounts: of the routines that are connected, or are being disconnected.
        settled: those of the past.
        mark: the latest mark since it entered the log.
    """

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.client: Client | None = None
        self.accounts: dict[int, Account] = {}
        self.settled: list[Account] = []
        self.asked: dict[int, tuple[str, int]] = {}  # msgid → what, of which routine: unanswered
        self.mark: int | None = None
        self._secret: dict[str, Any] = {}
        self._stream = 0

    # What it does

    async def hello(self) -> None:
        """Begin, or go on after the connection broke."""
        place: dict[str, Any] = {}
        if self.accounts:
            place = at(self._stream, min(each.next_seq for each in self.accounts.values()))
        self.client = client = await come(self.daemon, **self._secret, **(place if self._secret else {}))
        self._secret = {"resume": client.welcome["resume"]}
        self._stream = client.welcome["stream"]
        resumed = client.resumed
        if resumed is None:
            assert not self.accounts, "somebody listens, and nothing was kept for it"
            self.asked.clear()
        else:
            self._go_on(client, resumed)
        self._hear(client.heard)

    def _go_on(self, client: Client, resumed: Any) -> None:
        asked, self.asked = self.asked, {}
        for msgid in resumed["pending"]:
            self.asked[msgid] = asked.pop(msgid, ("answered before", 0))
        for what, isr in asked.values():
            if routine(isr) in resumed["registrations"]:
                self.ask("disconnect", isr)  # not carried out; or what was connected is not known, and undone
            else:
                account = self.accounts.get(isr)
                is_told = account is None or account.end_seq is not None or self.is_asking(isr)
                assert is_told or what != "disconnect", "an end that nobody will tell"

    def is_asking(self, isr: int) -> bool:
        return any(each == isr for _, each in self.asked.values())

    def connect(self, isr: int) -> None:
        if isr not in self.accounts and not self.is_asking(isr):
            self.ask("connect", isr)

    def disconnect(self, isr: int) -> None:
        if isr in self.accounts and self.accounts[isr].end_seq is None and not self.is_asking(isr):
            self.ask("disconnect", isr)

    def end_all(self, end_seq: int) -> None:
        """The port was removed: every routine has heard what came before this number, or is still to hear it."""
        for account in self.accounts.values():
            if account.end_seq is None:
                account.end_seq = end_seq
        self._settle()

    def ask(self, what: str, isr: int) -> None:
        assert self.client is not None
        msgid = next((number for number in range(MSGIDS) if number not in self.asked), None)
        assert msgid is not None
        self.asked[msgid] = what, isr
        code = Ioctl.PARALLEL_CONNECT_INTERRUPT if what == "connect" else Ioctl.PARALLEL_DISCONNECT_INTERRUPT
        self.client.stream.feed(request(msgid, _CONTROL, int(code), routine(isr), 40 if what == "connect" else 8))

    async def break_off(self) -> None:
        """The connection breaks; what was not read is gone."""
        assert self.client is not None
        await self.client.lose()
        self.client = None

    # What it hears

    def read(self, at_most: int | None = None) -> None:
        assert self.client is not None
        self._hear(self.client.read(at_most))

    def read_bytes(self, data: bytes) -> int:
        """The same, of bytes that were taken off the stream: how many frames they have completed."""
        assert self.client is not None
        messages = self.client.feed(data)
        self._hear(messages)
        return len(messages)

    async def read_all(self) -> None:
        assert self.client is not None
        self.client.stream.room = 1 << 30
        while messages := await self.client.messages():
            self._hear(messages)
        assert not self.asked

    def _hear(self, messages: list[Any]) -> None:
        for message in messages:
            if message[0] == 1:
                self._answer(*message[1:])
            elif message[1] == "interrupt":
                self._interrupt(*message[2])
            elif message[1] == "interrupt_sync":
                self._synchronize(*message[2])
            for account in self.accounts.values():
                account.check()
            self._settle()

    def _answer(self, msgid: int, error: Any, result: Any) -> None:
        what, isr = self.asked.pop(msgid)
        if what == "connect":
            assert error is None
            if not self.accounts:
                self.mark = None
            self.accounts[isr] = Account(U64.unpack(result[1][32:])[0])
        elif what == "disconnect" and isr in self.accounts:
            assert error is None
            self.accounts[isr].end_seq = U64.unpack(result[1])[0]
            if len(self.accounts) == 1 and self.client is not None and self.client.resumed is None:
                assert self.accounts[isr].is_settled, "the fence"

    def _interrupt(self, seq: int, _ns: int, count: int, _status: int, _control: int, kind: int) -> None:
        if kind != KIND_EVENT:
            self.mark = kind
        for account in self.accounts.values():
            account.event(seq, count)

    def _synchronize(self, _reason: str, next_seq: int, lost: int | None) -> None:
        assert lost is not None
        for account in self.accounts.values():
            account.leap(next_seq)

    def _settle(self) -> None:
        for isr, account in list(self.accounts.items()):
            if account.is_settled:
                self.settled.append(self.accounts.pop(isr))

    @property
    def takes_it_for_heard(self) -> bool:
        return self.mark not in (KIND_MASKED, KIND_STOPPED)


async def settle_down(ledger: Ledger) -> None:
    """It connects again if it has to, reads everything, and disconnects."""
    if ledger.client is None:
        await ledger.hello()
    await ledger.read_all()
    assert all(each.end_seq is None for each in ledger.accounts.values()), "an end that has not come"
    for isr in list(ledger.accounts):
        ledger.disconnect(isr)
    await wait_all_tasks_blocked()
    await ledger.read_all()
    assert not ledger.accounts
    for account in ledger.settled:
        assert account.end_seq is not None
        assert account.received + account.lost == account.end_seq - account.first_seq
