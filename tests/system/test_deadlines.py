"""The deadlines of a conversation in real time; tests/server has them on a virtual clock."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest

from tests.e2e.client import ALLOCATE, FREE, RawClient
from tests.e2e.daemons import serving

pytestmark = pytest.mark.system


def test_silence_is_ended_in_time_and_nobody_else_notices(tmp_path: Path) -> None:
    """No hello within 10 s; half a frame, then silence for 30 s; an owner that takes not a byte for `dead_peer_s`."""
    path = tmp_path / "lptd.toml"
    path.write_text('[server]\nlisten = ["lpt://127.0.0.1:0"]\n[limits]\ndead_peer_s = 2\n')
    with serving("--config", str(path)) as daemon:
        witness, waiter, half = daemon.connect(), daemon.connect(), daemon.connect()
        deaf = RawClient(daemon.address)
        deaf.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.hello().allocate()
        waiting = waiter.control(ALLOCATE)
        deaf.socket.settimeout(0.2)
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            ask_without_end(deaf)
        deaf_since = time.monotonic()
        stranger = RawClient(daemon.address)
        half.socket.sendall(b"\x94\x00\x01")

        assert waiter.output(waiting) == b""
        assert time.monotonic() - deaf_since < 2 + 2
        assert time.monotonic() - began > 1.5
        waiter.ioctl(FREE)

        stranger.socket.settimeout(12)
        assert stranger.rest() == [[2, "closing", ["no hello within 10 s"]]]
        half.socket.settimeout(35)
        assert half.rest() == [[2, "closing", ["a frame was not finished within 30 s"]]]
        assert 29 < time.monotonic() - deaf_since < 33
        assert witness.heard() == []
        for client in (witness, waiter, half, deaf, stranger):
            client.close()


def ask_without_end(client: RawClient) -> None:
    while True:
        client.send(*([0, 1, "status", []] for _ in range(100)))
