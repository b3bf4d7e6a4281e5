"""Every way in which lptd ends: an exit code that the pages state, a line for each cause, and never a traceback."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from lpt_service import ending
from lpt_service.protocol.errors import LptError
from tests.e2e.daemons import PROJECT, STOP_TIMEOUT_S, eventually

ANY = "lpt://127.0.0.1:0"
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join([str(PROJECT), str(PROJECT / "clients"), sysconfig.get_path("purelib")]),
}
_ANOTHER = Path("/usr/bin/python3")  # that of the distribution: Debian 12 has 3.11.2


def is_another_python() -> bool:
    """Whether the distribution's Python can use the libraries that are installed for this one."""
    if not _ANOTHER.exists() or _ANOTHER.resolve() == Path(sys.executable).resolve():
        return False
    script = f"import sys; sys.exit(sys.version_info[:2] != {sys.version_info[:2]})"
    return subprocess.run([_ANOTHER, "-c", script], check=False).returncode == 0


PYTHONS = [
    pytest.param(sys.executable, id="this Python"),
    pytest.param(
        str(_ANOTHER),
        id="the distribution's",
        marks=[pytest.mark.system, pytest.mark.skipif(not is_another_python(), reason="there is no other one")],
    ),
]


@pytest.fixture(params=PYTHONS)
def lptd(request: pytest.FixtureRequest) -> Callable[..., subprocess.Popen[bytes]]:
    """Starts lptd with arguments; its streams are pipes unless said otherwise."""

    def start(
        *arguments: str | bytes, redirected: str = "", prelude: str = "", **options: object
    ) -> subprocess.Popen[bytes]:
        command: list[str | bytes] = [request.param, "-m", "lpt_service", *arguments]
        if redirected:  # a redirection, by the shell, since Popen cannot close a stream
            command = ["sh", "-c", f'{prelude} exec "$@" {redirected}', "sh", *command]
        defaults = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "cwd": PROJECT, "env": ENVIRONMENT}
        return subprocess.Popen(command, **{**defaults, **options})  # type: ignore[call-overload, no-any-return]

    return start


class Exit(NamedTuple):
    """What lptd is to serve, and how that ends."""

    configuration: str
    said: tuple[str, ...]
    exit_code: int = 1


EXITS = {
    "no such folder": Exit(
        '[server]\nlisten = ["lpt+unix:///nonexistent/s"]',
        ("server.listen[0]: cannot listen on lpt+unix:///nonexistent/s: the socket's folder does not exist",),
    ),
    "a path too long": Exit(
        f'[server]\nlisten = ["lpt+unix:///tmp/{"a" * 120}"]', ("server.listen[0]: cannot listen on",)
    ),
    "in use": Exit('[server]\nlisten = ["lpt://127.0.0.1:{taken}"]', ("the address is in use",)),
    "not ours": Exit(
        '[server]\nlisten = [{{url = "lpt://192.0.2.1:0", insecure = true}}]',
        ("server.listen[0]: cannot listen on lpt://192.0.2.1:0: Cannot assign requested address",),
    ),
    "several": Exit(
        '[server]\nlisten = ["lpt+unix:///nonexistent/s", "lpt://127.0.0.1:{taken}"]',
        ("server.listen[0]: ", "server.listen[1]: "),
    ),
    "no certificates": Exit(
        '[server]\nlisten = ["lpts://127.0.0.1:0"]\n[tls]\ncertificate = "/nonexistent/c"\nkey = "/nonexistent/k"',
        ("tls.certificate: /nonexistent/c cannot be read", "tls.key: /nonexistent/k cannot be read"),
    ),
    "a certificate that is none": Exit(
        '[server]\nlisten = ["lpts://127.0.0.1:0"]\n[tls]\ncertificate = "/etc/passwd"\nkey = "/etc/passwd"',
        ("tls.certificate: /etc/passwd is not what it should be", "tls.key: /etc/passwd is not"),
    ),
    "not TOML": Exit("=", ("lptd.toml: not TOML: ",), 2),
    "unknown keys": Exit("[server]\na = 1\nb = 2", ("server.a: unknown key", "server.b: unknown key"), 2),
}


@pytest.mark.parametrize("kind", EXITS)
def test_what_cannot_be_served(
    kind: str, lptd: Callable[..., subprocess.Popen[bytes]], tmp_path: Path, taken: int
) -> None:
    configuration, said, exit_code = EXITS[kind]
    path = tmp_path / "lptd.toml"
    path.write_text(configuration.format(taken=taken))
    with lptd("serve", "--config", path) as process:
        out, err = process.communicate(timeout=STOP_TIMEOUT_S)
    lines = err.decode().splitlines()
    assert out == b""
    assert len(lines) == len(said), err.decode()
    for line, expected in zip(lines, said, strict=True):
        assert line.startswith("lptd: ")
        assert expected in line
    assert process.returncode == exit_code


@pytest.fixture
def taken() -> Iterator[int]:
    """A TCP port that somebody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock.getsockname()[1]


def test_a_socket_of_systemds_that_is_none(lptd: Callable[..., subprocess.Popen[bytes]]) -> None:
    with lptd("serve", "--simulate", redirected="3</dev/null", prelude="export LISTEN_PID=$$ LISTEN_FDS=1;") as process:
        _, err = process.communicate(timeout=STOP_TIMEOUT_S)
    assert err.startswith(b"lptd: descriptor 3 (unnamed), which systemd hands in, is no socket: Socket operation on")
    assert (err.count(b"\n"), process.returncode) == (1, 1)


# Signals


@pytest.mark.parametrize("number", ending.SIGNALS)
def test_a_signal_before_it_serves(number: signal.Signals, lptd: Callable[..., subprocess.Popen[bytes]]) -> None:
    """While it waits for its configuration, which a pipe never brings, a signal ends it, as it ends any program."""
    with lptd("serve", "--config", "/dev/stdin", stdin=subprocess.PIPE) as process:
        wait_until_it_reads(process.pid)
        process.send_signal(number)
        out, err = process.communicate(timeout=STOP_TIMEOUT_S)
    assert (process.returncode, out, err) == (-number, b"", b"")


def wait_until_it_reads(pid: int) -> None:
    """Until a process has opened its own standard input once more."""

    def is_opened_twice() -> bool:
        opened = []
        for each in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                opened.append(os.readlink(each))
        return opened.count(os.readlink(f"/proc/{pid}/fd/0")) > 1

    eventually(is_opened_twice)


def test_a_signal_while_it_starts() -> None:
    """One that comes before the daemon listens to signals is heeded all the same; none ends the process afterwards."""
    for number, expected in ((signal.SIGTERM, [signal.SIGTERM]), (signal.SIGHUP, [signal.SIGHUP])):
        former = {each: signal.getsignal(each) for each in ending.SIGNALS}
        try:
            with ending.noted_signals() as noted:
                signal.raise_signal(number)
                assert noted == expected
            assert {signal.getsignal(each) for each in ending.SIGNALS} == {signal.SIG_IGN}
        finally:
            for each, handler in former.items():
                signal.signal(each, handler)


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
def test_signals_all_the_way(first: signal.Signals, lptd: Callable[..., subprocess.Popen[bytes]]) -> None:
    """From ready until the process is gone they come without end: it stops in order."""
    with lptd("serve", "--simulate", "--listen", ANY, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGHUP)
        process.send_signal(first)
        while process.poll() is None:
            for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
                process.send_signal(number)
            time.sleep(0.001)  # Python handles one within the other, however deep, if they come too fast
    assert process.returncode == 0


# Standard streams


@pytest.mark.parametrize(
    "closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-", ">/dev/full", "2>/dev/full", ">/dev/full 2>&1"]
)
def test_serving_without_a_stream(closed: str, lptd: Callable[..., subprocess.Popen[bytes]], tmp_path: Path) -> None:
    """No socket gets the number of a stream that was closed; SIGTERM ends it with 0."""
    path = tmp_path / "s"
    with lptd("serve", "--simulate", "--listen", f"lpt+unix://{path}", redirected=closed) as process:
        eventually(lambda: path.exists() or process.poll() is not None)
        assert process.poll() is None
        opened = [os.readlink(f"/proc/{process.pid}/fd/{number}") for number in range(3)]
        assert not [each for each in opened if each.startswith(("socket:", "anon_inode:"))]
        process.terminate()
        out, err = process.communicate(timeout=STOP_TIMEOUT_S)
    assert b"Traceback" not in out + err
    assert process.returncode == 0


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["check-config", "deploy/config.toml"], ["doctor"]])
def test_output_that_cannot_be_written(arguments: list[str], lptd: Callable[..., subprocess.Popen[bytes]]) -> None:
    for redirected, said in ((">/dev/full", "No space left on device"), (">&-", "Bad file descriptor")):
        with lptd(*arguments, redirected=redirected) as process:
            _, err = process.communicate(timeout=STOP_TIMEOUT_S)
        assert err.decode() == f"lptd: standard output cannot be written: {said}\n"
        assert process.returncode == 1


@pytest.mark.parametrize("arguments", [["--version"], ["doctor"]])
def test_a_reader_that_has_seen_enough(arguments: list[str], lptd: Callable[..., subprocess.Popen[bytes]]) -> None:
    with lptd(*arguments, stdin=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
        assert process.wait(STOP_TIMEOUT_S) == 141


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_text_that_the_terminal_has_not(encoding: str, lptd: Callable[..., subprocess.Popen[bytes]]) -> None:
    """A name that is not UTF-8, and one that is and that the terminal lacks: written with numbers, on one line."""
    environment = {**ENVIRONMENT, "PYTHONIOENCODING": encoding}
    for command in ("check-config", "serve"):
        with lptd(command, "--config", b"/nonexistent/\xe9\xce\xa9\n", env=environment) as process:
            out, err = process.communicate(timeout=STOP_TIMEOUT_S)
        omega = b"\xce\xa9" if encoding == "utf-8" else rb"\u03a9"
        assert err.startswith(rb"lptd: /nonexistent/\udce9" + omega + rb"\n: cannot be read: No such file")
        assert (err.count(b"\n"), out, process.returncode) == (1, b"", 2)


# Errors of several kinds together


class WrongError(LptError):
    """An error that a user can do something about."""


def test_a_group_is_told_leaf_by_leaf(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    """A mistake in the daemon is one line, too, and its stack goes to the log."""
    inner = BaseExceptionGroup("inner", [WrongError("two\nthree"), ZeroDivisionError("nothing by nothing")])
    ending.explain(BaseExceptionGroup("outer", [WrongError("one"), inner]))
    assert capsys.readouterr().err.splitlines() == [
        "lptd: one",
        "lptd: two",
        "lptd: three",
        "lptd: internal error (its stack is in the log): ZeroDivisionError: nothing by nothing",
    ]
    (record,) = caplog.records
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError


def test_an_internal_error_ends_the_daemon_with_1() -> None:
    script = """
import lpt_service.cli
from lpt_service.protocol.errors import LptError
from lpt_service.server.daemon import Daemon

async def run(daemon):
    raise BaseExceptionGroup("tasks", [ZeroDivisionError(), BaseExceptionGroup("more", [LptError("as well")])])

Daemon.run = run
lpt_service.cli.main()
"""
    done = subprocess.run(
        [sys.executable, "-c", script, "serve", "--simulate"], capture_output=True, text=True, check=False
    )
    lines = done.stderr.splitlines()
    assert [line for line in lines if line.startswith("lptd: ")] == [
        "lptd: internal error (its stack is in the log): ZeroDivisionError: ",
        "lptd: as well",
    ]
    assert "CRITICAL internal error" in lines[0]
    assert done.returncode == 1
