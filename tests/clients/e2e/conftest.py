"""A real daemon with a simulated port, for the SDK.

The daemon needs Python 3.11; where these tests run on 3.10, the environment variable LPTD names its command.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from lpt_client import blocking

_STOP_TIMEOUT_S = 20


def daemon_command() -> list[str]:
    """How to start lptd."""
    if sys.version_info < (3, 11) and "LPTD" not in os.environ:
        pytest.skip("the daemon needs Python 3.11; LPTD names one that runs elsewhere")
    return shlex.split(os.environ.get("LPTD", "")) or [sys.executable, "-m", "lpt_service"]


class Daemon:
    """A running `lptd serve --simulate`; `url` names its port. `again` starts another at the same address."""

    def __init__(self, *arguments: str, listen: str = "lpt://127.0.0.1:0") -> None:
        command = [*daemon_command(), "serve", "--simulate", "--listen", listen, *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("listening on "), line
        self.url = line.removeprefix("listening on ").strip()

    def again(self) -> Daemon:
        """Another daemon where this one was."""
        return Daemon(listen=self.url.rpartition("/")[0])

    def stop(self) -> int:
        """End it in order; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """End it at once."""
        if self.process.poll() is None:
            self.process.kill()
        self.wait()

    def wait(self) -> int:
        assert self.process.stdout is not None
        code = self.process.wait(_STOP_TIMEOUT_S)
        self.process.stdout.close()
        return code


@contextmanager
def running(*arguments: str) -> Iterator[Daemon]:
    """A daemon for the length of the block."""
    daemon = Daemon(*arguments)
    try:
        yield daemon
    finally:
        daemon.kill()


@pytest.fixture(scope="module")
def shared_daemon() -> Iterator[Daemon]:
    """A daemon that the module's tests share, without pulses."""
    with running() as daemon:
        yield daemon


@pytest.fixture
def url(shared_daemon: Daemon) -> str:
    """Its port, free and with all data lines low: what a test leaves behind is noticed here."""
    with blocking.open_port(shared_daemon.url) as port, port.allocated(timeout=5):
        port.write_data(0)
        assert port.status()["waiting"] == 0
    return shared_daemon.url


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    """A daemon that the test may stop."""
    with running() as daemon:
        yield daemon
