"""A whole daemon under random interleavings of valid, invalid and cut frames of many clients.

It runs in epochs, each with random numbers of its own: `CHAOS_SEED=… CHAOS_EPOCH=…` repeats one. After each epoch every
client is gone, without a trace, and a client that behaves is served. With CHAOS_FUZZ_S it goes on for so long at least.

What is checked of every answer: it has the shape of the contract, its status has its name, nothing follows `closing`.
Of clients that send nothing but whole frames besides: every request is answered, once, and no conversation is ended.
"""

from __future__ import annotations

import itertools
import os
import random
import socket
import time
from typing import Any

import msgpack
import pytest

from lpt_service.protocol.codec import DAEMON_LIMITS, Decoder
from lpt_service.protocol.errors import ConversationError
from lpt_service.protocol.messages import Request
from tests.chaos import mutations, settings
from tests.chaos.processes import MIB, usage
from tests.chaos.well_behaved import WellBehaved
from tests.e2e.client import STATUSES, RawClient
from tests.e2e.daemons import DaemonProcess, eventually, serving

CLIENTS = 16
STEPS = 400
# Nothing accumulates: what is held of a client goes with it, and there are never more than so many.
_GROWTH_BYTES = 32 * MIB
_NOTICES = {
    "interrupt": 6,
    "interrupt_sync": 3,
    "port_check": 2,
    "queued": 2,
    "waiters": 1,
    "revoked": 1,
    "lease": 2,
    "closing": 1,
}


class Fuzzed:
    """One client. It never waits, neither for the kernel nor for an answer."""

    def __init__(self, daemon: DaemonProcess, chance: random.Random) -> None:
        self._chance = chance
        self.is_clean = chance.random() < 0.5
        client = daemon.connect(client="fuzzed") if self.is_clean or chance.random() < 0.7 else None
        self._handle = client.handle if client is not None else b"\x00" * 8
        self.socket = (client or RawClient(daemon.address)).socket
        self.socket.setblocking(False)
        self.pending: set[int] = set()
        self.is_over = False
        self._is_closing = False
        self._asked = 0
        self._unpacker = msgpack.Unpacker(max_array_len=1 << 16, max_map_len=1 << 16)

    def step(self) -> None:
        """Say something."""
        chance = self._chance
        if self.is_clean:
            self._send(b"".join(self._clean_frame() for _ in range(chance.choice((1, 1, 1, 2, 10)))))
            return
        match chance.randrange(8):
            case 0:
                self._send(chance.randbytes(chance.randrange(1, 200)))
            case 1 | 2:
                self._send(mutations.mutated(chance, mutations.frame(chance)))
            case 3:
                data = mutations.frame(chance)
                self._send(data[: chance.randrange(len(data))])
            case 4:
                self.end()
            case _:
                self._send(b"".join(mutations.frame(chance) for _ in range(chance.randint(1, 5))))

    def _clean_frame(self) -> bytes:
        """A request or a cancel, within the limits on frames."""
        while True:
            frame = self._frame()
            try:
                decoder = Decoder(DAEMON_LIMITS)
                decoder.receive(frame)
                message = decoder.next_message()
            except ConversationError:
                continue
            if type(message) is Request:
                self._asked += 1
                self.pending.add(message.msgid)
            return frame

    def _frame(self) -> bytes:
        chance = self._chance
        if chance.random() < 0.15:
            msgid = chance.randrange(1000, 1010 + self._asked) if chance.random() < 0.9 else mutations.value(chance)
            return bytes(msgpack.packb([2, "cancel", [msgid]]))
        method, params = mutations.request(chance, self._handle)
        if method == "hello" or method == "":
            method = "ping"
        return bytes(msgpack.packb([0, 1000 + self._asked, method, params]))

    def _send(self, data: bytes) -> None:
        try:
            sent = self.socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.is_over = True
            return
        if sent < len(data):  # half a frame is on its way, or it does not read: no conversation any more
            self.is_clean = False

    def end(self) -> None:
        """Close, or reset, or say that nothing more will come."""
        match self._chance.randrange(3):
            case 0:
                self.socket.close()
                self.is_over = True
            case 1:
                self.reset()
            case 2:
                try:
                    self.socket.shutdown(socket.SHUT_WR)
                except OSError:
                    self.is_over = True

    def reset(self) -> None:
        if not self.is_over:
            RawClient.reset(self)  # type: ignore[arg-type]  # it needs the socket alone
        self.socket.close()
        self.is_over = True

    def read(self) -> None:
        """Take what is there, and check it."""
        try:
            while not self.is_over:
                data = self.socket.recv(1 << 16)
                if not data:
                    self.is_over = True
                    assert not self.is_clean, "its conversation was ended, and it had done no wrong"
                self._unpacker.feed(data)
                for message in self._unpacker:
                    self._check(message)
        except BlockingIOError:
            return
        except OSError:
            self.is_over = True

    def _check(self, message: Any) -> None:
        assert not self._is_closing, f"after closing: {message}"
        if message[0] == 2:
            assert len(message) == 3, message
            assert len(message[2]) == _NOTICES[message[1]], message
            self._is_closing = message[1] == "closing"
            return
        kind, msgid, error, result = message
        assert kind == 1, message
        if error is not None:
            status, name, detail = error
            assert (STATUSES[name], result) == (status, None), message
            assert 0 < len(detail) < 1000, message
        if self.is_clean:
            assert msgid in self.pending, f"answered twice, or never asked: {message}"
            self.pending.remove(msgid)

    def settle(self) -> None:
        """Cancel all that waits: each request gets its one answer."""
        if self.is_over or not self.is_clean:
            return
        self._send(b"".join(msgpack.packb([2, "cancel", [msgid]]) for msgid in self.pending))
        eventually(self._is_settled, f"never answered: {self.pending}")

    def _is_settled(self) -> bool:
        self.read()
        return self.is_over or not self.is_clean or not self.pending


def run_epoch(daemon: DaemonProcess, chance: random.Random) -> None:
    """One interleaving."""
    clients: list[Fuzzed] = []
    try:
        for _ in range(STEPS):
            for client in [client for client in clients if client.is_over]:
                client.reset()
                clients.remove(client)
            if len(clients) < CLIENTS:
                clients.append(Fuzzed(daemon, chance))
            chance.choice(clients).step()
            if chance.random() < 0.2:
                for client in clients:
                    client.read()
        for client in clients:
            client.settle()
    finally:
        for client in clients:
            client.reset()


def fuzz(seed: int, epochs: int, seconds: float = 0) -> None:
    """So many epochs, and for so long at least; or one that is asked for."""
    only = os.environ.get("CHAOS_EPOCH")
    with serving("--simulate", "--listen", "lpt://127.0.0.1:0") as daemon:
        good = WellBehaved(daemon)
        good.round()
        run_epoch(daemon, random.Random("warm"))
        before = usage(daemon.process.pid)
        until = time.monotonic() + seconds
        for epoch in [int(only)] if only else itertools.count():
            try:
                run_epoch(daemon, random.Random(f"{seed}:{epoch}"))
                eventually(lambda: bool(good.client.call("status")["sessions"] == 1), "a session is left")
                good.round()
            except BaseException:
                print(f"CHAOS_EPOCH={epoch}")
                raise
            if epoch + 1 >= epochs and time.monotonic() >= until:
                break
        good.leave()
        after = usage(daemon.process.pid)
        assert after.rss_bytes - before.rss_bytes < _GROWTH_BYTES
        eventually(lambda: daemon.descriptors() < before.descriptors, "descriptors are left")
    print(f"{epoch + 1} epochs of {STEPS} steps; memory {before.rss_bytes / MIB:.1f}, then {after.rss_bytes / MIB:.1f}")


@pytest.mark.timeout(300)
def test_random_interleavings() -> None:
    fuzz(settings.seed(1), 3)


@pytest.mark.system
@pytest.mark.timeout(settings.number("CHAOS_FUZZ_S", 0) + 900)
def test_random_interleavings_for_long() -> None:
    fuzz(settings.seed(settings.LONG), 300, settings.number("CHAOS_FUZZ_S", 0))
