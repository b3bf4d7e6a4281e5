"""The addresses of a host's name, looked up in a thread.

The system's look-up can take half a minute, and nothing ends it: in the main thread Ctrl-C would wait for it. So it
runs in a thread of its own, which a caller who has no more time leaves behind; a program's end does not wait for it
either.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from ipaddress import ip_address
from typing import Any, Final

from lpt_client.waits import LONGEST_WAIT_S

Addresses = list[tuple[int, Any]]  # families and addresses, in the order in which they are to be tried

_under_way: Final[dict[tuple[int, str, int], LookUp]] = {}
_lock = threading.Lock()


def _after_fork_in_child() -> None:
    """Forget the look-ups: a child has no threads but one, and a lock that another held is nobody's to release."""
    global _lock
    _lock = threading.Lock()
    _under_way.clear()


if hasattr(os, "register_at_fork"):  # Windows cannot fork
    os.register_at_fork(after_in_child=_after_fork_in_child)


class LookUp:
    """One look-up. All who ask for the same name at the same time share it: a name costs one thread, at most."""

    def __init__(self, host: str, tcp_port: int) -> None:
        self._key = (os.getpid(), host, tcp_port)  # a forked child has the table, but not the threads
        self._is_done = threading.Event()
        self._when_done: list[Callable[[], object]] = []
        self._addresses: Addresses = []
        self._error: BaseException | None = None

    @classmethod
    def of(cls, host: str, tcp_port: int) -> LookUp:
        """The one that is under way, or a new one."""
        with _lock:
            found = _under_way.get((os.getpid(), host, tcp_port))
            if found is not None:
                return found
            look_up = cls(host, tcp_port)
            _under_way[look_up._key] = look_up
        try:
            threading.Thread(target=look_up._run, name=f"look-up of {host}", daemon=True).start()
        except RuntimeError:  # no threads are to be had, or not any more at the interpreter's end
            look_up._run()
        except BaseException:  # Ctrl-C, perhaps before the thread began
            look_up._forget()
            raise
        return look_up

    def _run(self) -> None:
        _, host, tcp_port = self._key
        try:
            found = socket.getaddrinfo(host, tcp_port, type=socket.SOCK_STREAM)
            self._addresses = [(family, address) for family, _, _, _, address in found]
        except BaseException as exc:
            self._error = exc
        self._forget()
        with _lock:
            self._is_done.set()
        for tell in self._when_done:
            tell()

    def _forget(self) -> None:
        with _lock:
            if _under_way.get(self._key) is self:
                del _under_way[self._key]

    def when_done(self, tell: Callable[[], object]) -> None:
        """Have `tell`, which raises nothing, called when it is done, in any thread."""
        with _lock:
            if not self._is_done.is_set():
                self._when_done.append(tell)
                return
        tell()

    def wait(self, deadline_s: float) -> Addresses:
        """The addresses. Raises what the look-up raised, or TimeoutError; then it may be waited for again."""
        while not self._is_done.is_set():
            remaining_s = deadline_s - time.monotonic()
            if not self._is_done.wait(max(0.0, min(remaining_s, LONGEST_WAIT_S))) and remaining_s <= LONGEST_WAIT_S:
                raise TimeoutError
        if self._error is not None:
            raise self._error
        return self._addresses


def numeric(host: str, tcp_port: int) -> Addresses | None:
    """The address of a numeric host; None for a name, and for an address with a zone, which the system must read."""
    with suppress(ValueError):
        if "%" not in host:
            family = socket.AF_INET6 if ip_address(host).version == 6 else socket.AF_INET
            return [(family, (host, tcp_port))]
    return None
