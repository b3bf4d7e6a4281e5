"""A service manager, as far as its notification socket goes."""

from __future__ import annotations

import os
import select
import socket
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

TIMEOUT_S = 40  # against hanging alone


class Manager:
    """Receives what a daemon tells. Each message is the list of its lines.

    Attributes:
        address: what NOTIFY_SOCKET is to be.
    """

    def __init__(self, *, is_abstract: bool = False) -> None:
        self._resources = ExitStack()
        folder = Path(self._resources.enter_context(tempfile.TemporaryDirectory()))
        self.socket = self._resources.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        self.address = f"@lptd-test-{os.getpid()}-{folder.name}" if is_abstract else str(folder / "notify")
        self.socket.bind(self.address.replace("@", "\0"))
        self.socket.setblocking(False)

    def __enter__(self) -> Manager:
        return self

    def __exit__(self, *exc: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._resources.close()

    def heard(self) -> list[list[str]]:
        """What has come."""
        messages: list[list[str]] = []
        while True:
            try:
                messages.append(self.socket.recv(65536).decode().split("\n"))
            except BlockingIOError:
                return messages

    def wait_for(self, wanted: Callable[[list[str]], bool]) -> list[list[str]]:
        """Messages up to one that is wanted, that one included; for a daemon that is another process."""
        messages: list[list[str]] = []
        deadline = time.monotonic() + TIMEOUT_S
        while not (messages and wanted(messages[-1])):
            left_s = deadline - time.monotonic()
            is_there = left_s > 0 and select.select([self.socket], [], [], left_s)[0]
            assert is_there, f"heard {messages}"
            messages.append(self.socket.recv(65536).decode().split("\n"))
        return messages


def says(assignment: str) -> Callable[[list[str]], bool]:
    """For `wait_for`: a message with this line."""
    return lambda message: assignment in message
