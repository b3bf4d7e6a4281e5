"""Clients in memory whose connection breaks, and that come back; and what they hear of the log."""

from __future__ import annotations

import itertools
from typing import Any

import trio
from trio.testing import wait_all_tasks_blocked

from lpt_service.protocol.ioctl import Ioctl
from lpt_service.protocol.messages import KIND_EVENT
from lpt_service.server.daemon import Daemon
from lpt_service.server.identity import Origin
from tests.server.fakes import MEMORY, Peer, simulated, start_daemon, status

GRACE_S = 10.0
_msgids = itertools.count(1)  # of all clients: no two use the same one


class Client(Peer):
    """A client that keeps what hello answered, and what came after it.

    Attributes:
        welcome: hello's answer.
        heard: what came after it, in the same step.
    """

    welcome: dict[str, Any]
    heard: list[Any]
    _taken = 0

    def read(self, at_most: int | None = None) -> list[Any]:
        return self.feed(self.stream.take(at_most))

    def feed(self, data: bytes) -> list[Any]:
        """The messages that what was taken off the stream makes whole."""
        self._taken += len(data)
        self._unpacker.feed(data)
        return list(self._unpacker)

    @property
    def is_whole(self) -> bool:
        """Whether what was read ends with a frame."""
        return self._unpacker.tell() == self._taken

    @property
    def number(self) -> int:
        number: int = self.welcome["session"]
        return number

    @property
    def resumed(self) -> Any:
        """What hello said of an earlier session; None if this is a fresh one."""
        return self.welcome.get("resumed")

    def allocate(self, **options: Any) -> int:
        return self.control(Ioctl.PARALLEL_PORT_ALLOCATE, b"", 8, **options)

    async def own(self) -> int:
        """Allocate the port, which is vacant; the grant."""
        return int.from_bytes((await self.result(self.allocate()))[1], "little")

    async def wait_for_port(self, **options: Any) -> int:
        """Allocate the port, which somebody owns: the msgid of the request."""
        msgid = self.allocate(**options)
        assert [2, "queued"] in [message[:2] for message in await self.messages()]
        return msgid

    async def lose(self, failure: Exception | None = None) -> None:
        """The connection breaks: it fails, or it ends."""
        if failure is None:
            self.stream.end()
        else:
            self.stream.break_(failure)
        await wait_all_tasks_blocked()
        assert self.stream.is_closed


async def come(daemon: Daemon, origin: Origin = MEMORY, room: int = 1 << 30, **keys: Any) -> Client:
    """A client that has said hello."""
    client = Client(daemon, room, origin)
    client._msgids = _msgids
    msgid = client.send("hello", {"protocol": 1, **keys})
    answer, *client.heard = await client.messages()
    assert answer[:3] == [1, msgid, None], answer
    client.welcome = answer[3]
    return client


async def back(daemon: Daemon, lost: Client, origin: Origin = MEMORY, **keys: Any) -> Client:
    """The client of a lost connection on a new one."""
    return await come(daemon, origin, resume=lost.welcome["resume"], **keys)


def at(stream: int, next_seq: int) -> dict[str, Any]:
    """For hello: where the client is in a log."""
    return {"from": [stream, next_seq]}


async def graceful(nursery: trio.Nursery, *, grace_s: float = GRACE_S, port: Any = None, **sections: Any) -> Daemon:
    """A daemon with a grace time; `port` has more keys for its port."""
    keys = {"enable_connect_interrupt": True, "grace_s": grace_s, **(port or {})}
    return await start_daemon(nursery, port=[keys], **sections)


def owner_of(daemon: Daemon) -> int | None:
    """The number of the session that owns the port."""
    owner = status(daemon)["owner"]
    return None if owner is None else owner["session"]


def parked(daemon: Daemon, name: str = "LPT1") -> int:
    """How many sessions are without a connection."""
    return len(daemon.workers[name].parking)


async def interrupt(daemon: Daemon, times: int = 1) -> None:
    """Interrupts, each an entry of its own."""
    for _ in range(times):
        simulated(daemon).raise_interrupt()
        await wait_all_tasks_blocked()


class Ear:
    """A listener across connections: drops by number what it has heard, and believes no gap that it is not told of.

    Attributes:
        received: interrupts heard.
        told_lost: as `interrupt_sync` said; who does not say where it is, is told only what was never sent.
        skipped: those that it has not heard, by the numbers in `interrupt_sync`.
        kinds: of the entries, marks that were heard twice counted twice.
    """

    def __init__(self) -> None:
        self.received = self.told_lost = self.skipped = 0
        self.kinds: list[int] = []
        self.syncs: list[Any] = []
        self.next_seq = 0  # the first interrupt that it has not heard
        self._expected: int | None = None  # on this connection

    def hear(self, messages: list[Any]) -> Ear:
        for message in messages:
            if message[:2] == [2, "interrupt_sync"]:
                self._synchronize(*message[2])
            elif message[:2] == [2, "interrupt"]:
                self._count(*message[2])
        return self

    def _synchronize(self, reason: str, next_seq: int, lost: int | None) -> None:
        self.syncs.append([reason, next_seq, lost])
        self._expected = next_seq
        if reason in ("connected", "restarted"):
            self.next_seq = next_seq
            return
        gap = max(0, next_seq - self.next_seq)
        assert lost is not None
        self.told_lost += lost
        self.skipped += gap
        self.next_seq = max(self.next_seq, next_seq)

    def _count(self, seq: int, _ns: int, count: int, _status: int, _control: int, kind: int) -> None:
        assert seq == self._expected, "a gap that was not told of"
        self._expected = seq + count
        self.kinds.append(kind)
        assert (count == 0) == (kind != KIND_EVENT)
        if seq >= self.next_seq:
            assert seq == self.next_seq
            self.received += count
            self.next_seq = seq + count
        else:
            assert seq + count <= self.next_seq, "an entry that was heard in part"
