"""Whoever reads what the daemon prints may stop reading, or be gone: it serves on, and stops in order."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.e2e.client import RawClient
from tests.e2e.daemons import PROJECT, START_TIMEOUT_S, STOP_TIMEOUT_S, eventually

Start = Callable[..., subprocess.Popen[bytes]]
CLIENTS = 300  # each has a few lines of log: more than a pipe holds


@pytest.fixture
def address(tmp_path: Path) -> str:
    return str(tmp_path / "lptd.sock")


@pytest.fixture
def start(address: str) -> Iterator[Start]:
    """Starts a daemon in a shell, with what is redirected; ends it in any case."""
    with ExitStack() as stack:

        def start(
            redirections: str, *, stdout: int | None = None, stderr: int | None = None
        ) -> subprocess.Popen[bytes]:
            lptd = f"{sys.executable} -m lpt_service serve --simulate --log-level debug --listen lpt+unix://{address}"
            command = ["sh", "-c", f"exec {lptd} {redirections}"]
            process = subprocess.Popen(command, cwd=PROJECT, stdout=stdout, stderr=stderr)
            stack.callback(process.wait)
            stack.callback(process.kill)
            eventually(lambda: can_connect(address), "it does not serve", START_TIMEOUT_S)
            return process

        yield start


def can_connect(address: str) -> bool:
    try:
        RawClient(address).close()
    except OSError:
        return False
    return True


def full_pipe(*, is_blocking: bool) -> tuple[int, int]:
    """One that takes nothing."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writing, b"." * 65536)
    os.set_blocking(writing, is_blocking)
    return reading, writing


def use(address: str) -> None:
    """Many clients come, are answered, and go."""
    for number in range(CLIENTS):
        client = RawClient(address).hello(client=f"client {number}")
        assert client.call("ping")
        client.close()


@pytest.mark.parametrize(("redirections", "is_blocking"), [("", True), ("2>&1", True), ("", False)])
def test_a_reader_that_stops_reading(start: Start, address: str, redirections: str, is_blocking: bool) -> None:
    """Of standard error; of both in one pipe; of one that does not block, which somebody else has made so."""
    reading, writing = full_pipe(is_blocking=is_blocking)
    streams = {"stdout": writing} if redirections else {"stderr": writing, "stdout": subprocess.DEVNULL}
    process = start(redirections, **streams)
    use(address)
    process.send_signal(signal.SIGTERM)
    assert process.wait(STOP_TIMEOUT_S) == 0
    os.close(reading)
    os.close(writing)


@pytest.mark.parametrize("redirections", [">&- 2>&-", ">/dev/full 2>/dev/full", "2>&1"])
def test_nobody_takes_what_it_prints(start: Start, address: str, redirections: str) -> None:
    """Closed streams, a full disk, a reader that is gone."""
    reading, writing = os.pipe()
    os.close(reading)
    process = start(redirections, stdout=writing)
    os.close(writing)
    use(address)
    process.send_signal(signal.SIGTERM)
    assert process.wait(STOP_TIMEOUT_S) == 0


def test_an_abort_is_not_held_up(start: Start) -> None:
    """The watchdog's: it writes the stacks, or not, and dies."""
    reading, writing = full_pipe(is_blocking=True)
    process = start("", stderr=writing, stdout=subprocess.DEVNULL)
    process.send_signal(signal.SIGABRT)
    assert process.wait(STOP_TIMEOUT_S) == -signal.SIGABRT
    os.close(reading)
    os.close(writing)


def test_in_the_usual_case_every_line_is_there_and_in_order(start: Start, address: str, tmp_path: Path) -> None:
    process = start(f"2>{tmp_path}/log")
    use(address)
    process.send_signal(signal.SIGTERM)
    assert process.wait(STOP_TIMEOUT_S) == 0
    lines = (tmp_path / "log").read_text().splitlines()
    assert "missing" not in "".join(lines)
    stamps = [line[:23] for line in lines]
    assert stamps == sorted(stamps)
    assert sum(line.endswith(": ended") for line in lines) >= CLIENTS
    assert "SIGTERM: stopping" in "".join(lines)
