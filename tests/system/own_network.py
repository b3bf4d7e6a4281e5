"""A network of its own for one thread and the processes that it starts: loopback alone, and every TCP port free."""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import threading
from collections.abc import Callable

import pytest

_CLONE_NEWNET = 0x40000000
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 1


def in_own_network(function: Callable[[], None]) -> None:
    """Call it in a thread in a network namespace that ends with it. Skips the test where that needs root."""
    if os.geteuid() != 0:
        pytest.skip("a network of its own needs root")
    failures: list[BaseException] = []

    def call() -> None:
        try:
            _leave()
            function()
        except BaseException as exc:  # for the test's own thread
            failures.append(exc)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


def _leave() -> None:
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", _IFF_UP))
