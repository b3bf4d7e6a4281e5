"""A MessagePack-RPC client that we did not write talks to the daemon unchanged: pynvim's session."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.e2e.client import ALLOCATE
from tests.e2e.conftest import Connect
from tests.e2e.daemons import PROJECT, DaemonProcess

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
