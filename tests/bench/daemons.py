"""The daemon under measurement: `lptd serve` as it is, or with the bench at the other end of its interrupt line."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lpt_client import TlsOptions
from tests.bench.bench import Address
from tests.bench.processes import module, running

# With certificates as `lptctl cert` makes them.
_TLS: Final = """\
[server]
listen = ["lpt://127.0.0.1:0", "lpts://127.0.0.1:0"]
log_level = "error"
[tls]
certificate = "{folder}/localhost.pem"
key = "{folder}/localhost.key"
"""
# The storm guard is lifted: a flood is what is to be measured.
_CONFIG: Final = """\
[server]
listen = ["lpt://127.0.0.1:0", "lpt+unix://{folder}/lptd.sock"]
log_level = "error"
[[port]]
enable_connect_interrupt = true
max_interrupt_rate_hz = 10_000_000
"""
_READY_TLS: Final = r"listening on lpt://127\.0\.0\.1:(\d+)/LPT1\nlistening on lpts://127\.0\.0\.1:(\d+)/LPT1\n"
_READY: Final = r"listening on lpt://127\.0\.0\.1:(\d+)/LPT1\n[^\n]*\n"


@dataclass(frozen=True)
class LptDaemon:
    """A running daemon. `line` is the descriptor that raises an interrupt when 1 is written to it, or None."""

    process: subprocess.Popen[bytes]
    tcp: Address
    unix: str
    line: int | None = None

    @property
    def url(self) -> str:
        """Of the port, by TCP."""
        assert not isinstance(self.tcp, str)
        return f"lpt://127.0.0.1:{self.tcp[1]}/LPT1"

    @property
    def unix_url(self) -> str:
        """Of the port, by the Unix socket."""
        return f"lpt+unix://{self.unix}#LPT1"

    def resident_kib(self) -> int:
        """The memory that the process has."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") // 1024


@contextmanager
def lptd(core: int) -> Iterator[LptDaemon]:
    """`lptd serve` with a simulated port."""
    with tempfile.TemporaryDirectory() as folder:
        config = _write_config(folder)
        command = [sys.executable, "-m", "lpt_service", "serve", "--config", config]
        with running(command, core, _READY) as (process, match):
            yield LptDaemon(process, ("127.0.0.1", int(match[1])), f"{folder}/lptd.sock")


@contextmanager
def tls_lptd(core: int) -> Iterator[tuple[str, TlsOptions]]:
    """A daemon that speaks TLS: the URL of its port, and what a client needs to believe it."""
    from lptctl import authority

    with tempfile.TemporaryDirectory() as folder:
        ca = authority.init(Path(folder))
        authority.issue_server(Path(folder), ("localhost",))
        config = Path(folder, "config.toml")
        config.write_text(_TLS.format(folder=folder))
        command = [sys.executable, "-m", "lpt_service", "serve", "--config", str(config)]
        with running(command, core, _READY_TLS) as (_, match):
            yield f"lpts://localhost:{match[2]}/LPT1", TlsOptions(ca)


@contextmanager
def wired_lptd(core: int, *, separate: bool = False) -> Iterator[LptDaemon]:
    """The same daemon in `wired_daemon`, which puts an eventfd of ours in the place of the simulated port's.

    `separate`: what waits in the eventfd becomes an entry of the log for each interrupt.
    """
    line = os.eventfd(0, os.EFD_NONBLOCK)
    try:
        with tempfile.TemporaryDirectory() as folder:
            command = module("wired_daemon", _write_config(folder), str(line), *(["separate"] if separate else []))
            with running(command, core, _READY, pass_fds=[line]) as (process, match):
                yield LptDaemon(process, ("127.0.0.1", int(match[1])), f"{folder}/lptd.sock", line)
    finally:
        os.close(line)


def _write_config(folder: str) -> str:
    path = Path(folder, "config.toml")
    path.write_text(_CONFIG.format(folder=folder))
    return str(path)
