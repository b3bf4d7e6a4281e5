"""A real daemon with a simulated port, for the SDK.

The daemon needs Python 3.11; where these tests run on 3.10, the environment variable LPTD names its command.
"""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from lpt_client import blocking

BOUND_S = 50  # everything comes about long before, unless it never does


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
        code = self.process.wait(BOUND_S)
        self.process.stdout.close()
        return code


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon that is slow for some seconds is not given up."""
    modules = {"blocking": ("keeper", "link", "ownership", "registering"), "trio": ("link", "ownership", "registering")}
    for client, names in modules.items():
        for name in names:
            monkeypatch.setattr(f"lpt_client.{client}_{name}.CLEANUP_TIMEOUT_S", 60.0)


@contextmanager
def running(*arguments: str, listen: str = "lpt://127.0.0.1:0") -> Iterator[Daemon]:
    """A daemon for the length of the block."""
    daemon = Daemon(*arguments, listen=listen)
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
    with blocking.open_port(shared_daemon.url) as port:
        with port.allocated(timeout=BOUND_S):
            port.write_data(0)
        while (status := port.status())["waiting"] or status["registered"]:
            time.sleep(0.01)  # the daemon is about to notice that they are gone
    return shared_daemon.url


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    """A daemon that the test may stop. Its TCP port is its own all the while: nobody else is given a bound one."""
    with socket.socket() as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("127.0.0.1", 0))
        with running(listen=f"lpt://127.0.0.1:{reserved.getsockname()[1]}") as daemon:
            yield daemon
