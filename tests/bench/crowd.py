"""The receiving end of a fan-out: N sockets, one epoll, bytes counted. It is the same for every contender."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable
from typing import Final

_STALL_S: Final = 20.0


class Crowd:
    """N connections that are to get the same messages, each of `message_bytes`."""

    def __init__(self, sockets: list[socket.socket], message_bytes: int) -> None:
        self.sockets = sockets
        self.message_bytes = message_bytes
        self._poll = select.epoll()
        self._receive: dict[int, Callable[[bytearray], int]] = {}
        self._buffer = bytearray(256 * 1024)
        for sock in sockets:
            self._poll.register(sock, select.EPOLLIN)
            self._receive[sock.fileno()] = sock.recv_into

    def close(self) -> None:
        """Hang up."""
        self._poll.close()
        for sock in self.sockets:
            sock.close()

    def settle(self) -> None:
        """Throw away what is still on its way from before."""
        while ready := self._poll.poll(0.02):
            for descriptor, _events in ready:
                self._receive[descriptor](self._buffer)

    def take(self) -> int:
        """Wait until something has come; how many bytes, in all."""
        ready = self._poll.poll(_STALL_S)
        if not ready:
            raise TimeoutError("nothing comes any more")
        receive, buffer = self._receive, self._buffer
        return sum([receive[descriptor](buffer) for descriptor, _ in ready])

    def one_by_one(self, publish: Callable[[], object], count: int) -> tuple[float, list[int]]:
        """Publish, wait until everybody has it, publish the next.

        Returns the seconds for all, and for each delivery the time in ns from before the publishing until it had
        been read.
        """
        clock, poll, receive, buffer = time.perf_counter_ns, self._poll.poll, self._receive, self._buffer
        self.settle()
        everything = len(self.sockets) * self.message_bytes
        latencies: list[int] = []
        start = clock()
        for _ in range(count):
            missing = everything
            began = clock()
            publish()
            while missing > 0:  # it may fall below: nats asks now and then whether we are alive, in 6 bytes
                ready = poll(_STALL_S)
                if not ready:
                    raise TimeoutError(f"{missing} bytes did not come")
                for descriptor, _events in ready:
                    missing -= receive[descriptor](buffer)
                    latencies.append(clock() - began)
        return (clock() - start) / 1e9, latencies

    def flood(self, publish_batch: Callable[[], object], batch: int, window: int, count: int) -> float:
        """Publish in batches, at most `window` messages ahead of the slowest; the seconds until all are everywhere."""
        self.settle()
        size = len(self.sockets) * self.message_bytes
        published = received_bytes = 0
        began = time.perf_counter()
        while received_bytes < count * size:
            while published < count and published - received_bytes // size <= window - batch:
                publish_batch()
                published += batch
            received_bytes += self.take()
        return time.perf_counter() - began
