"""The deadlines of a conversation in real time; tests/server has them on a virtual clock."""

from __future__ import annotations

import time

import pytest

from tests.e2e.client import RawClient
from tests.e2e.daemons import serving

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

PATIENCE_S = 240


def test_silence_is_ended_and_nobody_else_notices() -> None:
    """No hello within 10 s; half a frame, then silence for 30 s."""
    with serving("--simulate", "--listen", "lpt://127.0.0.1:0") as daemon:
        witness, half = daemon.connect(), daemon.connect()
        began = time.monotonic()
        stranger = RawClient(daemon.address)
        half.socket.sendall(b"\x94\x00\x01")

        stranger.socket.settimeout(PATIENCE_S)
        assert stranger.rest() == [[2, "closing", ["no hello within 10 s"]]]
        assert time.monotonic() - began > 10
        half.socket.settimeout(PATIENCE_S)
        assert half.rest() == [[2, "closing", ["a frame was not finished within 30 s"]]]
        assert time.monotonic() - began > 30
        assert witness.heard() == []
        for client in (witness, half, stranger):
            client.close()
