"""Standard streams that are closed, full, non-blocking, or that nobody reads: of every command."""

from __future__ import annotations

import io
import os
import signal
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.lptctl.processes import BOUND_S, Lptctl, finish, read_line, started, wait_until

pytest.importorskip("click")
pytest.importorskip("trio")
from lpt_client import blocking
from lptctl.streams import Notes, Output

FULL = Path("/dev/full")
pytestmark = pytest.mark.skipif(
    not (FULL.exists() and stat.S_ISCHR(FULL.stat().st_mode)), reason="this system has no /dev/full"
)

PRINTING = [
    ("--help",),
    ("--version",),
    ("run", "--help"),
    ("status",),
    ("status", "--json"),
    ("status", "--watch"),
    ("status", "--watch", "--json"),
    ("queue",),
    ("read",),
    ("pulse", "1", "--width-us", "1"),
    ("ping", "--count", "1"),
    ("latency", "--count", "1", "--warm-up", "0"),
    ("listen", "--json"),
    ("token",),
    ("cert", "init"),
]


@contextmanager
def full_output() -> Iterator[None]:
    """Standard output is a full disk."""
    number = os.open(FULL, os.O_WRONLY)
    before, sys.stdout = sys.stdout, io.TextIOWrapper(io.BufferedWriter(Output(number)), "utf-8")
    try:
        yield
    finally:
        sys.stdout = before
        os.close(number)


@pytest.mark.parametrize("command", PRINTING, ids=" ".join)
def test_an_output_that_is_full_is_5_and_one_line(
    lptctl: Lptctl, url: str, command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("cryptography") if command[0] == "cert" else None
    monkeypatch.chdir(tmp_path)
    with full_output():
        result = lptctl(*command, url=url)
    begin = "lptctl: received 0, lost 0: " if command[0] == "listen" else "lptctl: "
    assert result == (5, "", f"{begin}standard output could not be written: No space left on device\n")


def test_a_command_without_output_does_not_care(lptctl: Lptctl, url: str) -> None:
    with full_output():
        assert lptctl("write", "data", "0", url=url) == (0, "", "")


@pytest.mark.parametrize(
    ("arguments", "script"),
    [
        (("read",), '"$@" >&-'),
        (("--help",), '"$@" <&- >&-'),
        (("listen", "--json", "--count", "1"), '"$@" >&-'),
    ],
)
def test_a_closed_output_is_5(url: str, arguments: tuple[str, ...], script: str) -> None:
    with started(*arguments, url=url, script=script) as process:
        code, out, err = finish(process)
    assert (code, out) == (5, "")
    assert err.endswith("standard output could not be written: it is closed\n")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "script", ['"$@" 2>&-', '"$@" 2>/dev/full', '"$@" <&- >&- 2>&-', '"$@" >/dev/full 2>/dev/full']
)
def test_a_standard_error_that_takes_nothing_changes_no_exit_code(url: str, script: str) -> None:
    with started("read", "--url", "nonsense", url=url, script=script) as process:
        assert finish(process) == (2, "", "")


def test_completion_into_a_full_output_is_5(url: str) -> None:
    with started(url=url, script='"$@" >/dev/full', _LPTCTL_COMPLETE="bash_source") as process:
        result = finish(process)
    assert result == (5, "", "lptctl: standard output could not be written: No space left on device\n")


def test_closed_streams_are_closed_to_the_command_and_no_socket_is_in_their_place(url: str, tmp_path: Path) -> None:
    told = tmp_path / "told"
    source = f"import os; open({str(told)!r}, 'w').write(' '.join(os.listdir('/proc/self/fd')))"
    script = '"$@" <&- >&- 2>&-'
    with started("run", "--", sys.executable, "-c", source, url=url, script=script) as process:
        assert finish(process) == (0, "", "")
    # That of the file, and that of the directory that is listed, take the first free numbers.
    assert sorted(told.read_text().split()) == ["0", "1"]


def test_an_output_that_does_not_block_gets_everything(url: str) -> None:
    """Node and ssh hand such pipes on. The reader comes when the pipe is full."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    room = 0
    try:
        while True:
            room += os.write(writer, b"x" * 4096)
    except BlockingIOError:
        pass
    with started("read", url=url, stdout=writer) as process:
        os.close(writer)
        with open(reader, "rb") as pipe:
            assert process.stderr is not None
            told = pipe.read()
        assert finish(process).code == 0
    assert told[room:] == b"0x00\n"


def test_a_standard_error_that_nobody_reads_does_not_hold_up_the_command(url: str) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    try:
        while True:
            os.write(writer, b"x" * 4096)
    except BlockingIOError:
        os.set_blocking(writer, True)
    with (
        blocking.open_port(url) as port,
        port.allocated(),
        started("run", "--", "echo", "ran", url=url, stderr=writer) as process,
    ):
        wait_until(lambda: port.waiters() == 1)
        port.free()
        assert read_line(process.stdout) == "ran"
        assert process.wait(BOUND_S) == 0
    os.close(reader)
    os.close(writer)


def test_notes_wait_once_for_a_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    def select(_reading: object, _writing: object, _except: object, timeout_s: float) -> tuple[list[int], ...]:
        waits.append(timeout_s)
        return [], [7] if len(waits) == 3 else [], []

    monkeypatch.setattr("lptctl.streams.select.select", select)
    monkeypatch.setattr("lptctl.streams.os.write", lambda _number, chunk: len(chunk))
    notes = Notes(7)
    assert [notes.write(b"x" * 10) for _ in range(4)] == [10] * 4
    assert waits == [1.0, 0.0, 0.0, 1.0]


def test_a_reader_that_has_seen_enough_is_no_error(url: str) -> None:
    with started("queue", "--help", url=url, script='"$@" | true; "$@" | head -n 1') as process:
        code, out, err = finish(process)
    assert (code, err) == (0, "")
    assert out.startswith("Usage: ")


def test_a_pipe_without_a_reader_is_died_of(url: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with started("--help", url=url, stdout=writer) as process:
        os.close(writer)
        code, _, err = finish(process)
    assert (code, err) == (-signal.SIGPIPE, "")
