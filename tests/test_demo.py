"""`lptd demo`: it shows the main job, its exit code tells whether the accounts hold, and it leaves nobody behind."""

from __future__ import annotations

import contextlib
import io
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
import trio
from rich.console import Console

from lpt_service import demo
from tests.e2e.daemons import PROJECT, STOP_TIMEOUT_S, eventually
from tests.ended import children, have_ended

COMMAND = (sys.executable, "-m", "lpt_service", "demo")
# Lets a process have its standard input as its terminal, as one that a terminal's window has started.
WITH_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
)


def accounts(**changes: Any) -> dict[str, demo.Account]:
    """Of every client; the last one is changed."""
    good = {"first_seq": 3, "next_seq": 10, "received": 5, "lost": 2, "is_closed": True}
    process = cast(trio.Process, None)
    values = {name: {**good, **(changes if name == demo.NAMES[-1] else {})} for name in demo.NAMES}
    return {name: demo.Account(name, process, **values[name]) for name in demo.NAMES}


def _conclude(daemon_exit_code: int, **changes: Any) -> int:
    show = demo._Demo(is_live=False)
    show._accounts = accounts(**changes)
    return show._conclude(daemon_exit_code)


def test_exit_code_is_0_when_every_account_adds_up(capsys: pytest.CaptureFixture[str]) -> None:
    assert _conclude(0) == 0
    assert len(re.findall(r"^(?:anna|ben|cleo) +7 +5 +2 +adds up$", capsys.readouterr().out, re.MULTILINE)) == 3


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"received": 4}, id="one is missing"),
        pytest.param({"received": 6}, id="one too many"),
        pytest.param({"is_closed": False}, id="a client that lived did not report to the end"),
        pytest.param({"next_seq": 3, "received": 0, "lost": 0}, id="nothing was heard"),
    ],
)
def test_exit_code_is_1_when_an_account_does_not(changes: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert _conclude(0, **changes) == 1
    assert "DOES NOT ADD UP" in capsys.readouterr().out


def test_exit_code_is_1_when_the_daemon_failed() -> None:
    assert _conclude(1) == 1


def test_exit_code_is_1_when_a_client_is_missing() -> None:
    assert demo._Demo(is_live=False)._conclude(0) == 1


@pytest.mark.system
def test_demo_shows_the_main_job() -> None:
    done = subprocess.run([*COMMAND, "--plain"], check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    killed = re.search(r"(\w+) +is killed while it owns the port", done.stdout)
    assert killed is not None
    after = done.stdout[killed.end() :]
    assert re.search(r"owns the port, grant \d+", after), "nobody took over"
    assert re.search(r"waits at place 1", done.stdout)
    assert re.search(r"is told that the port is idle", done.stdout)
    assert len(re.findall(r" adds up(?:, killed)?\n", after)) == len(demo.NAMES)
    assert f"{killed[1]} " in after, "the one that was killed has its line in the table"


# What it looks like


@pytest.mark.parametrize(("width", "height"), [(60, 20), (80, 24), (200, 50), (80, 12)])
async def test_the_display_fits_the_terminal(width: int, height: int) -> None:
    """Every column whole, and as many of the latest happenings as there is room for, cut at the edge."""
    show = demo._Demo(is_live=True)
    show._accounts = accounts(state="waits, place 2", grants=123456, received=1234567890, port_checks=123456)
    for number in range(100):
        show._happened("anna", f"{number}: connects its interrupt routine, and hears from number 1234567890 on")
    out = io.StringIO()
    console = Console(file=out, width=width, height=height)
    console.print(show._picture(console))
    lines = out.getvalue().splitlines()
    assert len(lines) < height
    assert max(map(len, lines)) <= width
    assert "99: connects" in lines[-1]
    assert lines[1][-1] == "┓"  # the edge of the last column
    for whole in ("client", "state", "grants", "interrupts", "checks", "waits, place 2", "123456", "1234567890"):
        assert whole in out.getvalue()


def test_the_conclusion_fits_60_columns(capsys: pytest.CaptureFixture[str]) -> None:
    _conclude(0, was_killed=True, received=1)
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 60


# Nobody is left behind


@contextlib.contextmanager
def running(prefix: Sequence[str] = (), **options: Any) -> Iterator[tuple[subprocess.Popen[bytes], set[int]]]:
    """A demo whose daemon and clients are there, and their process numbers."""
    process = subprocess.Popen([*prefix, *COMMAND], cwd=PROJECT, **options)
    try:
        eventually(lambda: len(children(process.pid)) == 1 + len(demo.NAMES))
        yield process, children(process.pid)
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGKILL])
def test_a_signal_ends_all_of_it(number: signal.Signals, tmp_path: Path) -> None:
    with (tmp_path / "said").open("w+b") as said, running(stdout=said, stderr=said) as (process, started):
        process.send_signal(number)
        assert process.wait(STOP_TIMEOUT_S) == -number
        eventually(lambda: have_ended(started))
        said.seek(0)
        assert b"Traceback" not in said.read()


def test_a_terminal_that_closes_ends_all_of_it() -> None:
    """The live display has nowhere to go, and SIGHUP comes."""
    terminal, its = pty.openpty()
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), its)
    with running((sys.executable, "-c", WITH_TERMINAL), start_new_session=True, **streams) as (process, started):
        os.close(its)
        os.close(terminal)
        assert process.wait(STOP_TIMEOUT_S) == -signal.SIGHUP
        eventually(lambda: have_ended(started))


def test_a_client_that_ends_early_ends_all_of_it() -> None:
    with running(stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as (process, started):
        victim = next(
            pid for pid in sorted(started) if b"lpt_service.demo" in Path(f"/proc/{pid}/cmdline").read_bytes()
        )
        os.kill(victim, signal.SIGABRT)
        assert process.wait(STOP_TIMEOUT_S) == 1
        assert process.stderr is not None
        assert re.fullmatch(rb"lptd: the demo's client \w+ ended with exit code -6\n", process.stderr.read())
        process.stderr.close()
        eventually(lambda: have_ended(started))


def test_a_reader_that_has_seen_enough_ends_all_of_it() -> None:
    with running(stdout=subprocess.PIPE, stderr=subprocess.PIPE) as (process, started):
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.wait(STOP_TIMEOUT_S) == 141
        assert process.stderr.read() == b""
        process.stderr.close()
        eventually(lambda: have_ended(started))
