"""Clients of a daemon that is restarted again and again: twenty that listen, four of which work, and one that knocks.

    python -m tests.vm.inside.restart_load FOLDER

Ends when FOLDER/stop is there, and leaves its account in FOLDER/account.json.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

from lpt_client import blocking
from lpt_client.errors import ConnectFailed, InvalidDeviceState, NotConnected, PortStopped, RequestError
from lpt_client.events import Interrupt, Mark, Reconnected, Sync
from tests.e2e.client import Address, RawClient

LISTENERS: Final = 20
WORKERS: Final = 4
UNIX: Final = "/run/lptd/lptd.sock"
TCP: Final = ("127.0.0.1", 5378)
PORT: Final = "SIMULATED"
URL: Final = f"lpt+unix://{UNIX}#{PORT}"
_JOIN_S: Final = 240.0


class Load:
    """What the clients count together; each listener has its own account, too."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.counts: Counter[str] = Counter()
        self.listeners: list[dict[str, Any]] = []
        self._lock = threading.Lock()

    def count(self, what: str) -> None:
        with self._lock:
            self.counts[what] += 1

    # Clients

    def listen(self) -> None:
        """Hear all, through every restart: each leap is told, each new log is told as unknown."""
        told: Counter[str] = Counter()
        expected: int | None = None
        is_leap_due = False
        with (
            blocking.open_port(URL, reconnect=True, connect_timeout_s=_JOIN_S) as port,
            port.connect_interrupt() as events,
        ):
            stream, expected = port.session.stream, events.first_seq
            while not self.stop.is_set():
                event = events.next(timeout=0.5)
                if isinstance(event, Interrupt):
                    told["unexplained"] += event.seq != expected or is_leap_due
                    expected = event.seq + event.count
                elif isinstance(event, Sync):
                    told["unexplained"] += event.lost is not None and event.next_seq - event.lost != expected
                    told["unexplained"] += is_leap_due and event.lost is not None
                    told["restarted"] += event.reason == "restarted"
                    expected, is_leap_due = event.next_seq, False
                elif isinstance(event, Mark):
                    told[event.kind] += 1
                elif isinstance(event, Reconnected):
                    told["reconnected"] += 1
                    is_leap_due = event.stream != stream
                    stream = event.stream
        self.listeners.append({**told, "received": events.received, "lost": events.lost})

    def work(self) -> None:
        """Own the port and raise an interrupt, in turns with the others."""
        while not self.stop.is_set():
            try:
                with blocking.open_port(URL) as port:
                    while not self.stop.is_set():
                        with port.allocated(timeout=_JOIN_S):
                            port.pulse(0x08, width_us=100)
                        self.count("pulses")
            except ConnectFailed as exc:
                self.count("refused" if isinstance(exc.__cause__, ConnectionRefusedError) else "broken hello")
            except (NotConnected, PortStopped, RequestError, InvalidDeviceState):
                self.count("cut off")

    def knock(self, address: Address) -> None:
        """Connect and say hello, as often as it goes."""
        while not self.stop.is_set():
            try:
                client = RawClient(address)
            except (ConnectionRefusedError, FileNotFoundError):
                self.count("refused")
                continue
            client.socket.settimeout(_JOIN_S)
            try:
                client.hello(port=PORT)
                self.count("hellos")
            except (EOFError, OSError):  # the daemon stopped after it had accepted
                self.count("broken hello")
            finally:
                client.close()
            self.stop.wait(0.05)

    def run(self, folder: Path) -> None:
        """Let all of them run until told to stop."""
        tasks = [self.listen] * LISTENERS + [self.work] * WORKERS
        threads = [threading.Thread(target=task, daemon=True) for task in tasks]
        threads += [threading.Thread(target=self.knock, args=(address,), daemon=True) for address in (UNIX, TCP)]
        for thread in threads:
            thread.start()
        (folder / "begun").touch()
        while not (folder / "stop").exists():
            time.sleep(0.1)
        self.stop.set()
        deadline = time.monotonic() + _JOIN_S
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        account = {"hung": sum(thread.is_alive() for thread in threads), **self.counts, "listeners": self.listeners}
        (folder / "account.json").write_text(json.dumps(account), encoding="utf-8")


if __name__ == "__main__":
    socket.setdefaulttimeout(_JOIN_S)
    Load().run(Path(sys.argv[1]))
