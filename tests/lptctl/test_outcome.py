"""Errors and exit codes, help, and the way the daemon is named."""

from __future__ import annotations

import json
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lptctl.processes import BOUND_S, LPTCTL, Lptctl, finish, running_daemon, started

pytest.importorskip("click")
pytest.importorskip("trio")
from lpt_client import blocking, errors
from lpt_service.protocol.status import Status
from lptctl.cli import _COMMANDS

# One of each way to connect: the blocking client, and trio's.
COMMANDS = [
    ("status",),
    ("status", "--watch"),
    ("read",),
    ("write", "data", "1"),
    ("pulse", "1", "--width-us", "1"),
    ("ping",),
    ("latency",),
    ("drain",),
    ("queue",),
    ("revoke",),
    ("kick", "1"),
    ("pause",),
    ("resume",),
    ("listen",),
    ("run", "--", "true"),
]


@pytest.fixture
def nobody_url() -> Iterator[str]:
    """An address at which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"lpt://127.0.0.1:{taken.getsockname()[1]}/LPT1"


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_no_daemon_is_3(lptctl: Lptctl, nobody_url: str, tmp_path: Path, command: tuple[str, ...]) -> None:
    result = lptctl.fails(*command, url=nobody_url)
    assert result.code == 3
    assert f"cannot reach the daemon: {nobody_url}: " in result.err
    assert "(start lptd there, or name another daemon with --url or LPT_URL)" in result.err
    assert lptctl.fails(*command, url=f"lpt+unix://{tmp_path}/none.sock").code == 3


@pytest.mark.parametrize(
    "bad",
    [
        "lab-pc",
        "http://lab-pc",
        "lpt://",
        "lpt://lab-pc:99999",
        "lpt+unix://relative",
        "lpt://a..b",
    ],
)
@pytest.mark.parametrize("command", [("read",), ("listen",), ("run", "--", "true"), ("status", "--watch")])
def test_a_bad_url_is_2(lptctl: Lptctl, command: tuple[str, ...], bad: str) -> None:
    assert lptctl.fails(*command, url=bad).code == 2


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_an_unknown_port_is_1(lptctl: Lptctl, url: str, command: tuple[str, ...]) -> None:
    result = lptctl.fails(*command, url=url.replace("LPT1", "LPT9"))
    assert result.code == 1
    assert "STATUS_NO_SUCH_DEVICE" in result.err
    assert "the URL ends in the name of the port" in result.err


def test_interrupts_that_are_disabled_are_1(lptctl: Lptctl, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('[server]\nlisten = ["lpt://127.0.0.1:0"]\n[[port]]\nname = "LPT1"\ndevice = "simulated"\n')
    with running_daemon("--config", str(config)) as daemon:
        result = lptctl.fails("listen", url=daemon.url)
    assert result.code == 1
    assert "STATUS_UNSUCCESSFUL" in result.err
    assert "enable_connect_interrupt = true" in result.err


def test_the_address_after_the_command_wins_over_the_one_before_and_that_over_the_variable(
    lptctl: Lptctl, url: str, nobody_url: str
) -> None:
    assert lptctl("--url", url, "read", url=nobody_url).code == 0
    assert lptctl("--url", nobody_url, "read", "--url", url, url=nobody_url).code == 0
    assert lptctl("--url", nobody_url, "read", url=url).code == 3


def test_ping(lptctl: Lptctl, url: str) -> None:
    measured = json.loads(lptctl("ping", "--json", "--count", "3", url=url).out)
    assert measured["count"] == 3
    assert 0 < measured["min_us"] <= measured["median_us"] <= measured["max_us"]
    assert abs(measured["clock_offset_us"]) < measured["min_us"] / 2 + 1e6  # right to half of the fastest round trip
    shown = lptctl("ping", "--count", "2").out.splitlines()
    assert shown[0].startswith("round trip    min ")
    assert shown[1].startswith("clock offset  ")


@pytest.mark.parametrize("command", ["", *_COMMANDS])
def test_help_has_examples_and_exit_codes(lptctl: Lptctl, command: str) -> None:
    short, long = lptctl(*command.split(), "-h"), lptctl(*command.split(), "--help")
    assert short == long
    assert short.code == 0
    assert "Examples:\n" in short.out
    assert "  Exit codes:" in short.out
    assert f"  lptctl {command}" in short.out


def test_the_first_help_tells_every_command_in_a_few_words(lptctl: Lptctl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    commands = lptctl("--help").out.split("\nLook at the port:\n")[1].split("\n\n  Exit codes:")[0]
    lines = [line for line in commands.splitlines() if line.startswith("  ")]
    assert [line.split()[0] for line in lines] == list(_COMMANDS)
    assert all(line.endswith(".") and not line.endswith("...") for line in lines)


def test_version(lptctl: Lptctl) -> None:
    from lpt_service import __version__

    assert lptctl("--version") == (0, f"lptctl, version {__version__}\n", "")


def test_a_token_is_taken_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    from lptctl.common import session_options

    monkeypatch.setenv("LPT_TOKEN", "secret")
    assert session_options("read")["token"] == "secret"
    monkeypatch.setenv("LPT_TOKEN", "")
    assert session_options("read")["token"] is None


def test_names_that_are_no_text_do_no_harm(lptctl: Lptctl, url: str) -> None:
    assert lptctl.fails("run", "--", "\udcff\x1b" + "x" * 5000, url=url).code in (126, 127)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.UrlError("x"), 2),
        (errors.ConnectFailed("x"), 3),
        (errors.ConnectionLost("x"), 3),
        (errors.PortClosed("x"), 3),
        (errors.PortStopped("x"), 3),
        (errors.ConversationError("x"), 3),
        (errors.Revoked("lease"), 3),
        (errors.TimedOut(Status.STATUS_IO_TIMEOUT), 4),
        (errors.AccessDenied(Status.STATUS_ACCESS_DENIED, "y"), 1),
        (errors.HelloRefused(Status.STATUS_ACCESS_DENIED, "y"), 1),
        (errors.HelloRefused(Status.STATUS_NOT_SUPPORTED, "y"), 1),
        (errors.HelloRefused(Status.STATUS_INSUFFICIENT_RESOURCES, "y"), 1),
        (errors.PortRemoved(Status.STATUS_DELETE_PENDING), 1),
        (errors.LimitReached(Status.STATUS_INSUFFICIENT_RESOURCES), 1),
        (errors.DeviceFailed(Status.STATUS_IO_DEVICE_ERROR), 1),
        (errors.RequestError(0xC0001234, "new"), 1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_error_has_its_code_and_a_line(error: errors.LptError, code: int) -> None:
    from lptctl.outcome import failure_of

    failure = failure_of(error)
    assert failure is not None
    assert failure.exit_code == code
    if isinstance(error, errors.RequestError) and code == 1:
        assert error.status_name in str(failure)


ROLE = "role: PARALLEL_PORT_ALLOCATE needs the role use on port LPT1, this session has observe"


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (errors.AccessDenied(Status.STATUS_ACCESS_DENIED, ROLE), "roles stand in the daemon's configuration"),
        (errors.HelloRefused(Status.STATUS_ACCESS_DENIED, "role: anonymous has none here"), "LPT_TOKEN"),
        (errors.HelloRefused(Status.STATUS_ACCESS_DENIED, "token: missing or wrong"), "LPT_TOKEN"),
        (errors.HelloRefused(Status.STATUS_NOT_SUPPORTED, "protocol: 2"), "different versions"),
        (errors.HelloRefused(Status.STATUS_INSUFFICIENT_RESOURCES, "sessions: 1"), "try again later"),
        (
            errors.RequestError(Status.STATUS_DEVICE_NOT_READY, "port LPT1 is paused: a cable"),
            "`lptctl resume` lets it go on",
        ),
        (errors.InvalidParameter(Status.STATUS_INVALID_PARAMETER, "method: 'x' is not known"), "older than lptctl"),
        (
            errors.InvalidParameter(Status.STATUS_INVALID_PARAMETER, "session: port LPT1 has no session 9"),
            "`lptctl status`",
        ),
    ],
)
def test_a_refusal_comes_with_what_to_do(error: errors.RequestError, advice: str) -> None:
    from lptctl.outcome import failure_of

    told = str(failure_of(error))
    assert error.detail in told
    assert advice in told.partition(error.detail)[2]


def test_a_refusal_that_says_all_itself_has_no_advice() -> None:
    from lptctl.outcome import failure_of

    plain = errors.HelloRefused(Status.STATUS_ACCESS_DENIED, "token: not over plain TCP; use lpts://")
    assert str(failure_of(plain)) == f"the daemon refused: {plain}"


def test_a_fault_of_ours_is_no_failure() -> None:
    from lptctl.outcome import failure_of

    assert failure_of(KeyError("x")) is None


def test_a_peer_of_another_kind_is_3(lptctl: Lptctl) -> None:
    from threading import Thread

    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            with server.accept()[0] as connection:
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                connection.recv(4096)

        thread = Thread(target=answer)
        thread.start()
        result = lptctl.fails("read", url=f"lpt://127.0.0.1:{server.getsockname()[1]}")
        thread.join()
    assert result.code == 3


def test_output_into_a_closed_pipe_ends_quietly(url: str) -> None:
    with started("status", "--watch", "--interval", "0.05", url=url) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(BOUND_S) == -signal.SIGPIPE
        assert process.stderr.read() == ""


def test_the_entry_point_gives_the_exit_code(url: str, nobody_url: str) -> None:
    assert LPTCTL[0] == sys.executable
    with started("read", url=url) as process, started("read", url=nobody_url) as failing:
        assert finish(process).code == 0
        assert finish(failing).code == 3
    with blocking.open_port(url) as port:
        assert port.status()["owner"] is None
