"""Clients of other libraries: pynvim's session, which we did not write, and one that knows nothing but old raw."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from typing import Any

import pytest

from tests.e2e.client import (
    ALLOCATE,
    CONNECT_INTERRUPT,
    DATA,
    DISCONNECT_INTERRUPT,
    INTERNAL,
    READ_PORT_UCHAR,
    TIMEOUT_S,
    WRITE_PORT_UCHAR,
    routine,
)
from tests.e2e.conftest import Connect
from tests.e2e.daemons import PROJECT, DaemonProcess
from tests.protocol.old_raw import OldDecoder, encode

EXPECTED = [
    ["port", "LPT1"],
    ["ping", 2],
    ["allocate", 8],
    ["owner", "pynvim"],
    ["connect", 40],
    ["write", 0],
    ["write", 0],
    ["told", ["interrupt_sync", "connected"]],
    ["told", ["interrupt", 1]],
    ["read", 8],
    ["disconnect", 8],
    ["told", ["waiters", 1]],
    ["free", 0],
    ["error", "STATUS_INVALID_DEVICE_STATE"],
]


def test_pynvim_talks_to_the_daemon(daemon: DaemonProcess, connect: Connect) -> None:
    """It opens with a notification of its own, may send methods as bin, and numbers its requests."""
    pytest.importorskip("pynvim")
    waiter = connect()
    command = [sys.executable, "-m", "tests.e2e.pynvim_client", str(daemon.address[1])]
    said = []
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            said.append(json.loads(line))
            if said[-1][0] == "disconnect":
                msgid = waiter.control(ALLOCATE)
    assert said == EXPECTED
    assert process.returncode == 0
    assert waiter.output(msgid) == b""


def test_a_library_that_knows_neither_bin_nor_text_talks_to_the_daemon(daemon: DaemonProcess) -> None:
    """Raw bytes, as msgpack-rpc-python 0.4.1 sends them: buffers that are text by chance, and such as are not."""
    told = OldDecoder()
    received: list[Any] = []
    assert not isinstance(daemon.address, str)
    with socket.create_connection(daemon.address, TIMEOUT_S) as connection:

        def ask(msgid: int, method: str, *params: Any) -> Any:
            connection.sendall(encode([0, msgid, method, params]))
            while not any(message[:2] == [1, msgid] for message in received):
                received.extend(told.feed(connection.recv(1 << 16)))
            (answer,) = (message[2:] for message in received if message[:2] == [1, msgid])
            return answer

        error, welcome = ask(1, "hello", {"protocol": 1, "client": "old", "raw": True})
        assert error is None
        assert b"raw" in welcome[b"features"]
        assert ask(2, INTERNAL, ALLOCATE, b"", 8)[1][0] == 8
        assert ask(3, INTERNAL, CONNECT_INTERRUPT, routine(0x80), 40)[1][0] == 40
        for value in (b"\xf7", b"\x08", b"\xc3", b"\xff", b"\x00"):  # D3 rises twice
            assert ask(4, INTERNAL, WRITE_PORT_UCHAR, DATA + value + b"\xa9", 0) == [None, [0, b""]]
            assert ask(5, INTERNAL, READ_PORT_UCHAR, DATA, 1) == [None, [1, value]]
            received = [message for message in received if message[0] == 2]
        assert ask(6, INTERNAL, DISCONNECT_INTERRUPT, routine(0x80), 8)[0] is None
        error, result = ask(7, INTERNAL, WRITE_PORT_UCHAR, b"\x01\x80", 0)
        assert (error[1], result) == (b"STATUS_INVALID_PARAMETER", None)
    sync, *interrupts = [message[1:] for message in received if message[0] == 2]
    assert sync[0] == b"interrupt_sync"
    assert sum(params[2] for _, params in interrupts) == 2
