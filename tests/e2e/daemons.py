"""The daemon as a process of its own."""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.e2e.client import Address, RawClient

PROJECT = Path(__file__).parent.parent.parent
# Against hanging alone: a busy machine may take its time.
START_TIMEOUT_S = 40
STOP_TIMEOUT_S = 40
EVENT_TIMEOUT_S = 40
_LISTENING = re.compile(r"listening on (lpt\+unix|lpts?)://(.*?)(?:#|/)([^/#]+)$")


class DaemonProcess:
    """A running `lptd serve`.

    `sockets` are handed in as by a socket unit, `environment` is set besides; `is_journal`: standard error is to count
    as the journal's.

    Attributes:
        lines: what it has printed when it was ready.
        addresses: where it listens, one for each line.
    """

    def __init__(
        self,
        *arguments: str,
        sockets: Sequence[socket.socket] = (),
        environment: Mapping[str, str] | None = None,
        is_journal: bool = False,
    ) -> None:
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `kill`
        environ = {**os.environ, **(environment or {})}
        if is_journal:
            found = os.fstat(self._stderr.fileno())
            environ["JOURNAL_STREAM"] = f"{found.st_dev}:{found.st_ino}"
        descriptors = [each.fileno() for each in sockets]
        activated = [sys.executable, "-m", "tests.e2e.activated", *map(str, descriptors), "--"] if sockets else []
        self.process = subprocess.Popen(
            [*activated, sys.executable, "-m", "lpt_service", "serve", *arguments],
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            cwd=PROJECT,
            env=environ,
            pass_fds=descriptors,
        )
        self.lines: list[str] = []
        self.addresses: list[Address] = []

    def wait_until_ready(self, lines: int = 1) -> None:
        """Wait for so many `listening on` lines."""
        assert self.process.stdout is not None
        text, deadline = b"", time.monotonic() + START_TIMEOUT_S
        while text.count(b"\n") < lines:
            left_s = deadline - time.monotonic()
            assert select.select([self.process.stdout], [], [], left_s)[0], f"not ready: {self.log()}"
            chunk = os.read(self.process.stdout.fileno(), 4096)
            assert chunk, f"it has ended: {self.log()}"
            text += chunk
        self.lines = text.decode().splitlines()
        for line in self.lines:
            match = _LISTENING.fullmatch(line)
            assert match is not None, line
            scheme, where, _ = match.groups()
            host, _, port = where.rpartition(":")
            self.addresses.append(where if scheme == "lpt+unix" else (host, int(port)))

    @property
    def address(self) -> Address:
        """Where the first listener is."""
        return self.addresses[0]

    def connect(self, **keys: Any) -> RawClient:
        """A client that has said hello."""
        return RawClient(self.address).hello(**keys)

    def status(self, **keys: Any) -> dict[str, Any]:
        """What a client that comes and goes is told by `status`."""
        client = self.connect(**keys)
        report: dict[str, Any] = client.call("status")
        client.close()
        return report

    def rss_bytes(self) -> int:
        """The memory that it has now."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def wait_until_idle(self) -> None:
        """Wait until it has done all that it can do now: for a tenth of a second it takes no processor time."""
        ticks = -1
        deadline = time.monotonic() + EVENT_TIMEOUT_S
        while ticks != (ticks := self._processor_ticks()):
            assert time.monotonic() < deadline, "it is busy on and on"
            time.sleep(0.1)

    def _processor_ticks(self) -> int:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    def descriptors(self) -> int:
        """How many files it has open."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def log(self) -> str:
        """What it has written to standard error."""
        return os.pread(self._stderr.fileno(), 1 << 24, 0).decode()  # its own offset is the writer's, too

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def stop(self) -> int:
        """SIGTERM; its exit code."""
        self.signal(signal.SIGTERM)
        return self.process.wait(STOP_TIMEOUT_S)

    def kill(self) -> None:
        """End it at once, and give back what it took here."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._stderr.close()


@contextmanager
def serving(*arguments: str, lines: int = 1, **options: Any) -> Iterator[DaemonProcess]:
    """A daemon that is ready, and at the end has written no error and stops in order."""
    daemon = DaemonProcess(*arguments, **options)
    try:
        daemon.wait_until_ready(lines)
        yield daemon
        if daemon.process.poll() is None:
            assert daemon.stop() == 0
        log = daemon.log()
        assert "Traceback" not in log, log
        errors = [line for line in log.splitlines() if " ERROR " in line and "reload refused" not in line]
        assert errors == []
    finally:
        daemon.kill()


def eventually(
    condition: Callable[[], bool], what: str = "it did not happen", timeout_s: float = EVENT_TIMEOUT_S
) -> None:
    """Wait for what another process brings about; fail after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.005)


def is_clean(report: dict[str, Any]) -> bool:
    """Whether a status shows no trace of anybody but the one who asked."""
    return (report["owner"], report["waiting"], report["registered"], report["sessions"]) == (None, 0, 0, 1)
