"""A simulated daemon and lptctl, as processes; and lptctl in this process, where signals do not matter."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest

# Everything comes about long before, unless it never does.
BOUND_S = 30.0
LPTCTL = (sys.executable, "-m", "lptctl")

# Makes the terminal on standard input the controlling one, then becomes lptctl: so Ctrl-C is typed, not sent.
_ON_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execvp(sys.argv[1], sys.argv[1:])
"""


class Daemon(NamedTuple):
    """A running daemon and the URL of its port."""

    process: subprocess.Popen[str]
    url: str

    def kill(self) -> None:
        """End it without a farewell."""
        self.process.kill()
        self.process.wait(BOUND_S)


@contextmanager
def running_daemon(*options: str, listen: str = "lpt://127.0.0.1:0") -> Iterator[Daemon]:
    """`lptd serve --simulate`, or as `options` say, for the length of the block."""
    command = options if "--config" in options else ("--simulate", "--listen", listen, *options)
    with subprocess.Popen(
        [sys.executable, "-m", "lpt_service", "serve", *command, "--log-level", "error"],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("listening on "), f"lptd said {line!r}"
            yield Daemon(process, line.removeprefix("listening on ").strip())
        finally:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(BOUND_S)
                except subprocess.TimeoutExpired:
                    process.kill()
                    raise


class Result(NamedTuple):
    """What lptctl did."""

    code: int
    out: str
    err: str


def environment(**variables: str) -> dict[str, str]:
    """The environment of this process, without what would change lptctl, and with `variables`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LPT_")}
    return {**kept, "TERM": "xterm", "COLUMNS": "120", **variables}


@contextmanager
def started(
    *arguments: str,
    url: str,
    on_terminal: int | None = None,
    setting: str = "",
    script: str = "",
    stdout: int | None = None,
    stderr: int | None = None,
    **variables: str,
) -> Iterator[subprocess.Popen[str]]:
    """Lptctl as a process, with pipes, or on the terminal with this descriptor; killed if it is left running.

    `setting` is Python that runs in it before: to give a time of its own that would be short on a slow machine.
    `script` is a shell script that runs lptctl, which is "$@", and may change first what that inherits. `stdout` and
    `stderr` are descriptors in place of pipes.
    """
    command: tuple[str, ...] = LPTCTL
    if setting:
        command = (sys.executable, "-c", f"import sys; {setting}; from lptctl.cli import main; sys.exit(main())")
    if script:
        command = ("sh", "-c", script, "sh", *command)
    if on_terminal is not None:
        command = (sys.executable, "-c", _ON_TERMINAL, *command)
    stream = subprocess.PIPE if on_terminal is None else on_terminal
    with subprocess.Popen(
        [*command, *arguments],
        env=environment(LPT_URL=url, **variables),
        stdin=stream,
        stdout=stream if stdout is None else stdout,
        stderr=stream if stderr is None else stderr,
        text=True,
        errors="backslashreplace",
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def finish(process: subprocess.Popen[str]) -> Result:
    """Wait for its end."""
    out, err = process.communicate(timeout=BOUND_S)
    return Result(process.returncode, out or "", err or "")


def read_line(stream: Any) -> str:
    """The next line of a pipe; pytest's own time-out bounds the wait.

    Not a byte more is read: `communicate` would not find what a buffer has.
    """
    line = b""
    while not line.endswith(b"\n") and (byte := os.read(stream.fileno(), 1)):
        line += byte
    return line.decode(errors="backslashreplace").rstrip("\n")


def read_terminal_until(descriptor: int, text: str) -> str:
    """What a terminal shows, up to `text` at the least."""
    shown = b""
    while text.encode() not in shown:
        try:
            shown += os.read(descriptor, 4096)
        except OSError:  # how a terminal that nobody has open any more ends
            break
    return shown.decode(errors="replace")  # it may end, or begin, within a letter


def wait_until(is_so: Callable[[], bool], timeout_s: float = BOUND_S) -> None:
    """Look again and again, soon; fail if it does not come about."""
    ends_s = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < ends_s, "did not come about in time"
        time.sleep(0.005)


def wait_until_idle(url: str, **options: Any) -> None:
    """Wait until nothing is left on a port of those who used it before."""
    from lpt_client import blocking

    with blocking.open_port(url, **options) as port:

        def is_idle() -> bool:
            status = port.status()
            return status["owner"] is None and status["waiting"] == status["registered"] == 0

        wait_until(is_idle)


class Lptctl:
    """Calls lptctl in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self._capsys = capsys
        self._monkeypatch = monkeypatch
        for name in ("LPT_URL", "LPT_GRANT", "LPT_TOKEN"):
            monkeypatch.delenv(name, raising=False)

    def __call__(self, *arguments: str, url: str | None = None) -> Result:
        from lptctl.cli import main

        if url is not None:
            self._monkeypatch.setenv("LPT_URL", url)
        self._capsys.readouterr()
        code = main(arguments)
        return Result(code, *self._capsys.readouterr())

    def fails(self, *arguments: str, url: str | None = None) -> Result:
        """The same, for a call that must end with one line on standard error and nothing else."""
        result = self(*arguments, url=url)
        assert result.out == ""
        assert result.err.startswith("lptctl: ")
        assert result.err.count("\n") == 1
        return result
