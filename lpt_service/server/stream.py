"""One connection's bytes: a non-blocking socket that is tried first and waited for only when it is not ready.

Why not trio's SocketStream: its `receive_some` and `send_all` yield to the scheduler at every call, which nearly
doubles the time of a small request and reply; and whoever publishes an interrupt must not wait for a socket.
"""

from __future__ import annotations

import fcntl
import socket
import struct
import termios
from contextlib import suppress
from typing import Final, Protocol

import trio

from lpt_service.protocol import tcp_info

RECEIVE_BYTES: Final = 64 * 1024
# The kernel takes this much more than is on its way, so that replies do not wait behind megabytes of events.
UNSENT_LOW_WATER_BYTES: Final = 64 * 1024
# After the last frame: how long, and how much, a peer may still be talking before the connection is cut.
_DISCARD_S: Final = 1.0
_DISCARD_BYTES: Final = 16 * 1024 * 1024
_LOOK_S: Final = 1.0  # between two looks at whether the peer has taken everything
_INT: Final = struct.Struct("i")
# The room that a last frame gets behind what the peer has not read, as far as net.core.wmem_max allows.
_LAST_ROOM_BYTES: Final = 512 * 1024
_TCP_NOTSENT_LOWAT_OFF: Final = 0x7FFF_FFFF
_RTO_CEILINGS_MS: Final = range(1_000, 120_001)  # what the kernel takes for TCP_OPTION_RTO_CEILING


class Stream(Protocol):
    """What a session needs of its connection.

    Error handling: every method may raise OSError (the peer is gone) or trio.ClosedResourceError (closed here).
    """

    def try_receive(self) -> bytes | None:
        """Bytes that are here, empty at the end of the stream, None if one has to wait."""

    async def receive(self) -> bytes:
        """Wait for bytes; empty at the end of the stream."""

    def try_send(self, data: bytes | memoryview) -> int:
        """Send what can be sent at once; how many bytes that was (0 when the stream is full).

        If it ends in the midst of a frame, the rest of that frame must be offered next.
        """

    async def wait_writable(self) -> None:
        """Wait until `try_send` can do something."""

    def unsent_bytes(self) -> int:
        """Bytes sent that the peer has not taken yet; that it shrinks shows that the peer is alive."""

    def set_dead_peer_s(self, dead_peer_s: float) -> None:
        """From now on, notice a peer that cannot be reached within this time."""

    def is_unreachable(self, dead_peer_s: float) -> bool:
        """Whether the peer has been asked for a sign of life, and has given none for that long.

        Whether it reads does not matter: it is its kernel that answers.
        """

    def make_room(self) -> None:
        """Let the kernel hold more than usual, for the last frames of a conversation whose peer does not read now."""

    async def finish(self) -> None:
        """Say that nothing more comes, and let the peer read the last frame; bounded in time."""

    async def wait_until_taken(self) -> None:
        """Wait until closing loses nothing that was sent. Not bounded."""

    def close(self) -> None:
        """Close at once."""


class SocketStream:
    """A plain TCP or Unix socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    def try_receive(self) -> bytes | None:
        """What the kernel has."""
        try:
            return self._socket.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return None

    async def receive(self) -> bytes:
        """Wait for bytes; empty at the end of the stream."""
        while True:
            await trio.lowlevel.wait_readable(self._socket)
            data = self.try_receive()
            if data is not None:
                return data

    def try_send(self, data: bytes | memoryview) -> int:
        """Send what the kernel takes at once."""
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0

    async def wait_writable(self) -> None:
        """Wait until the kernel takes more."""
        await trio.lowlevel.wait_writable(self._socket)

    def unsent_bytes(self) -> int:
        """SIOCOUTQ: what is in the send queue, not acknowledged (TCP) or not read (Unix)."""
        return int(_INT.unpack(fcntl.ioctl(self._socket, termios.TIOCOUTQ, _INT.pack(0)))[0])

    def set_dead_peer_s(self, dead_peer_s: float) -> None:
        """Tell the kernel; a Unix socket's peer is always reached."""
        if self._socket.family != socket.AF_UNIX:
            _set_dead_peer_s(self._socket, dead_peer_s)

    def is_unreachable(self, dead_peer_s: float) -> bool:
        """As TCP_INFO has it; a Unix socket's peer is always reached."""
        if self._socket.family == socket.AF_UNIX:
            return False
        info = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, tcp_info.TCP_INFO_BYTES)
        return tcp_info.is_unreachable(info, dead_peer_s)

    def make_room(self) -> None:
        """Lift what `set_options` has set, and the kernel's own measure if it is smaller."""
        if self._socket.family != socket.AF_UNIX:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _TCP_NOTSENT_LOWAT_OFF)
        if self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) < _LAST_ROOM_BYTES:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _LAST_ROOM_BYTES)

    async def finish(self) -> None:
        """Shut down our half, then discard what comes: closing with unread input would reset the connection and take
        the last frame with it.
        """
        self._socket.shutdown(socket.SHUT_WR)
        discarded = 0
        with trio.move_on_after(_DISCARD_S):
            while discarded < _DISCARD_BYTES and (data := await self.receive()):
                discarded += len(data)

    async def wait_until_taken(self) -> None:
        """A Unix socket's peer has everything; TCP soon gives up what its peer does not take from a closed socket."""
        while self._socket.family != socket.AF_UNIX and self.unsent_bytes():  # noqa: ASYNC110 - no event tells of it
            await trio.sleep(_LOOK_S)

    def close(self) -> None:
        """Close at once; whoever waits on the socket gets ClosedResourceError."""
        if self._socket.fileno() >= 0:
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()


def set_options(sock: socket.socket, dead_peer_s: float) -> None:
    """Set up a connected socket, so that `SocketStream.is_unreachable` tells of a dead peer in time."""
    sock.setblocking(False)
    if sock.family == socket.AF_UNIX:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, UNSENT_LOW_WATER_BYTES)
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_LOW_WATER_BYTES)
    _set_dead_peer_s(sock, dead_peer_s)


def _set_dead_peer_s(sock: socket.socket, dead_peer_s: float) -> None:
    """Have the kernel ask the peer for a sign of life often enough: an idle one, and one whose window is closed.

    Not by TCP_USER_TIMEOUT, which ends a peer that does not read, although it answers: docs/adr/0017.
    """
    # Keep-alive knows whole seconds only. When as many probes went unanswered, the kernel ends the connection.
    timeout_s, probes = int(dead_peer_s), 5
    interval_s = max(1, timeout_s * 2 // 3 // probes)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, max(1, timeout_s - probes * interval_s))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, interval_s)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, probes)
    # Left alone, the pauses between two probes of a closed window double up to two minutes.
    pause_ms = min(max(int(dead_peer_s / 3 * 1000), _RTO_CEILINGS_MS.start), _RTO_CEILINGS_MS.stop - 1)
    with suppress(OSError):  # an older kernel
        sock.setsockopt(socket.IPPROTO_TCP, tcp_info.TCP_OPTION_RTO_CEILING, pause_ms)
