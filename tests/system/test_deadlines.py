"""The deadlines of a conversation in real time; tests/server has them on a virtual clock."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest

from tests.e2e.client import ALLOCATE, FREE, RawClient
from tests.e2e.daemons import serving

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

DEAD_PEER_S = 2
PATIENCE_S = 240


def test_silence_is_ended_and_nobody_else_notices(tmp_path: Path) -> None:
    """No hello within 10 s; half a frame, then silence for 30 s; an owner that takes not a byte for `dead_peer_s`."""
    path = tmp_path / "lptd.toml"
    path.write_text(f'[server]\nlisten = ["lpt://127.0.0.1:0"]\n[limits]\ndead_peer_s = {DEAD_PEER_S}\n')
    with serving("--config", str(path)) as daemon:
        witness, waiter, half = daemon.connect(), daemon.connect(), daemon.connect()
        began = time.monotonic()
        stranger = RawClient(daemon.address)
        half.socket.sendall(b"\x94\x00\x01")

        deaf = RawClient(daemon.address)
        deaf.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.hello().allocate()
        waiting = waiter.control(ALLOCATE)
        deaf_since = time.monotonic()
        deaf.socket.settimeout(PATIENCE_S)
        with pytest.raises(ConnectionError):
            ask_without_end(deaf)
        assert time.monotonic() - deaf_since > DEAD_PEER_S
        assert waiter.output(waiting) == b""
        waiter.ioctl(FREE)

        stranger.socket.settimeout(PATIENCE_S)
        assert stranger.rest() == [[2, "closing", ["no hello within 10 s"]]]
        assert time.monotonic() - began > 10
        half.socket.settimeout(PATIENCE_S)
        assert half.rest() == [[2, "closing", ["a frame was not finished within 30 s"]]]
        assert time.monotonic() - began > 30
        assert witness.heard() == []
        for client in (witness, waiter, half, deaf, stranger):
            client.close()


def ask_without_end(client: RawClient) -> None:
    while True:
        client.send(*([0, 1, "status", []] for _ in range(100)))
