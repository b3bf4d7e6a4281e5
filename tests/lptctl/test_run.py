"""lptctl run: the command, the queue, signals, and the loss of the port."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from tests.lptctl.processes import (
    BOUND_S,
    Lptctl,
    finish,
    read_line,
    read_terminal_until,
    running_daemon,
    started,
    wait_until,
)
from tests.lptctl.scripted import scripted_daemon

pytest.importorskip("click")
pytest.importorskip("trio")
from lpt_client import blocking
from lpt_service.protocol.errors import RequestError
from lpt_service.protocol.status import Status

# Says which signals come, and ends at SIGTERM with 7. They are blocked and waited for, so that none slips in between.
TELLS_SIGNALS = """
import signal, sys
heeded = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2}
signal.pthread_sigmask(signal.SIG_BLOCK, heeded)
print("ready", flush=True)
while (number := signal.sigwait(heeded)) != signal.SIGTERM:
    print(signal.Signals(number).name, flush=True)
sys.exit(7)
"""
WAITS_FOR_A_LINE = "import os, sys; print(os.getpid(), flush=True); sys.stdin.readline(); sys.exit(5)"
SLEEPS = "import os, time; print(os.getpid(), flush=True); time.sleep(50)"
IGNORES_SIGTERM = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);" + SLEEPS


def python(source: str) -> tuple[str, ...]:
    """A command that runs this source."""
    return ("--", sys.executable, "-c", source)


# For `run`: a command that ends when it is told to, however slow the machine is.
SLEEPING = ("--kill-after", "60", *python(SLEEPS))


def is_alive(process_number: int) -> bool:
    """Whether there is such a process."""
    try:
        os.kill(process_number, 0)
    except ProcessLookupError:
        return False
    return True


# The command


def test_the_command_owns_the_port_and_knows_it(url: str) -> None:
    source = "import os; print(os.environ['LPT_URL'], os.environ['LPT_GRANT'], flush=True); input()"
    with blocking.open_port(url) as port, started("run", *python(source), url=url) as process:
        forced_before = port.status()["counters"]["forced_releases"]
        shown_url, grant = read_line(process.stdout).split()
        owner = port.status()["owner"]
        assert shown_url == url
        assert owner["grant"] == int(grant)
        assert owner["client"].startswith("lptctl run python")
        process.communicate("\n")
        assert process.returncode == 0
        assert port.status()["owner"] is None
        assert port.status()["counters"]["forced_releases"] == forced_before


@pytest.mark.parametrize(
    ("source", "code"),
    [("raise SystemExit(42)", 42), ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", 128 + 9)],
)
def test_its_exit_code_is_given_back(lptctl: Lptctl, url: str, source: str, code: int) -> None:
    assert lptctl("run", *python(source), url=url) == (code, "", "")


def test_a_command_that_is_not_there_is_127(lptctl: Lptctl, url: str) -> None:
    assert lptctl.fails("run", "--", "/no/such\x1b/command", url=url).code == 127


def test_a_command_that_cannot_be_executed_is_126(lptctl: Lptctl, url: str, tmp_path: Path) -> None:
    assert lptctl.fails("run", "--", str(tmp_path), url=url).code == 126


def test_the_commands_own_options_are_its_own(url: str) -> None:
    with started("run", "echo", "--timeout", "-h", url=url) as process:
        assert finish(process) == (0, "--timeout -h\n", "")


# The queue


def test_a_port_that_is_not_got_is_4_or_what_is_asked_for(lptctl: Lptctl, url: str) -> None:
    with blocking.open_port(url, client="anna") as port, port.allocated():
        result = lptctl.fails("run", "--no-wait", "--", "true", url=url)
        assert result.code == 4
        assert "anna (" in result.err
        assert lptctl.fails("run", "--timeout", "0", "-E", "75", "--", "true").code == 75
        assert lptctl("run", "--timeout", "0.01", "--conflict-exit-code", "0", "--", "true").code == 0


def test_the_place_in_the_queue_is_shown(url: str) -> None:
    with blocking.open_port(url) as port, port.allocated(), started("run", "--", "true", url=url) as first:
        assert read_line(first.stderr) == "lptctl: waiting for LPT1: place 1"
        with started("run", "--", "true", url=url) as second:
            assert read_line(second.stderr) == "lptctl: waiting for LPT1: place 2"
            first.terminate()
            assert finish(first).code == -signal.SIGTERM
            assert read_line(second.stderr) == "lptctl: waiting for LPT1: place 1"
            port.free()
            assert finish(second) == (0, "", "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_ends_the_waiting(url: str, number: signal.Signals) -> None:
    with blocking.open_port(url) as port, port.allocated():
        with started("run", "--", "echo", "ran", url=url) as process:
            assert read_line(process.stderr).endswith("place 1")
            process.send_signal(number)
            assert finish(process) == (-number, "", "")
        assert port.waiters() == 0


# Signals


def test_signals_are_passed_on(url: str) -> None:
    with started("run", *python(TELLS_SIGNALS), url=url) as process:
        assert read_line(process.stdout) == "ready"
        for name in ("SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2"):
            process.send_signal(signal.Signals[name])
            assert read_line(process.stdout) == name
        process.terminate()
        assert finish(process) == (7, "", "")


def test_ctrl_c_on_a_terminal_reaches_the_command_once(url: str) -> None:
    terminal, inner = os.openpty()
    with started("run", *python(TELLS_SIGNALS), url=url, on_terminal=inner) as process:
        os.close(inner)
        read_terminal_until(terminal, "ready")
        process.send_signal(signal.SIGUSR2)  # once that is passed on, lptctl knows that the command runs
        read_terminal_until(terminal, "SIGUSR2")
        os.write(terminal, b"\x03")
        shown = read_terminal_until(terminal, "SIGINT")
        process.send_signal(signal.SIGUSR1)  # whatever came before it has been shown before it
        shown += read_terminal_until(terminal, "SIGUSR1")
        process.terminate()
        assert process.wait(BOUND_S) == 7
    os.close(terminal)
    assert shown.count("SIGINT") == 1


def test_a_signal_that_lptctl_is_to_ignore_stays_ignored(url: str) -> None:
    source = "import signal; print(signal.getsignal(signal.SIGHUP) is signal.SIG_IGN)"
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with started("run", *python(source), url=url) as process:
            assert finish(process) == (0, "True\n", "")
    finally:
        signal.signal(signal.SIGHUP, before)


# The loss of the port


def test_a_lost_daemon_ends_the_command_and_the_waiting() -> None:
    with (
        running_daemon() as daemon,
        started("run", *SLEEPING, url=daemon.url) as owning,
    ):
        command = int(read_line(owning.stdout))
        with started("run", "--", "echo", "ran", url=daemon.url) as waiting:
            assert read_line(waiting.stderr).endswith("place 1")
            daemon.kill()
            result = finish(waiting)
        code, _, err = finish(owning)
        assert code == 3
        assert err.startswith("lptctl: the port was lost, the command is ended: ")
        assert err.count("\n") == 1
        assert not is_alive(command)
        assert (result.code, result.out) == (3, "")
        assert result.err.startswith("lptctl: connection lost: ")


def test_a_command_that_does_not_heed_sigterm_is_killed() -> None:
    with (
        running_daemon() as daemon,
        started("run", "--kill-after", "0.1", *python(IGNORES_SIGTERM), url=daemon.url) as process,
    ):
        command = int(read_line(process.stdout))
        daemon.process.send_signal(signal.SIGTERM)  # stops in order
        code, _, err = finish(process)
    assert code == 3
    assert err.splitlines()[1] == "lptctl: the command did not heed SIGTERM for 0.1 s, it is killed"
    assert not is_alive(command)


def test_a_lost_port_can_be_ignored() -> None:
    with (
        running_daemon() as daemon,
        started("run", "--on-lost", "ignore", *python(WAITS_FOR_A_LINE), url=daemon.url) as process,
    ):
        read_line(process.stdout)
        daemon.kill()
        assert read_line(process.stderr).startswith("lptctl: the port was lost, the command goes on without it: ")
        result = process.communicate("\n")
    assert (process.returncode, *result) == (5, "", "")


def test_a_revoked_port_ends_the_command() -> None:
    with scripted_daemon() as daemon, started("run", *SLEEPING, url=daemon.url) as process:
        command = int(read_line(process.stdout))
        daemon.notify("revoked", "lease: held for 60 s while others wait")
        code, _, err = finish(process)
    assert code == 3
    assert err == "lptctl: the port was lost, the command is ended: lease: held for 60 s while others wait\n"
    assert not is_alive(command)


@pytest.mark.parametrize(
    ("reason", "remaining_ms", "told"),
    [
        ("held", 5000, "in 5 s: it has been held for long, and others wait"),
        ("idle", 1500, "in 1.5 s: it has been held for long without being used"),
        ("another\x1b", 0, "in 0 s: another\\x1b"),
    ],
)
def test_a_lease_that_nears_its_end_is_told(reason: str, remaining_ms: int, told: str) -> None:
    with scripted_daemon() as daemon, started("run", *python(WAITS_FOR_A_LINE), url=daemon.url) as process:
        read_line(process.stdout)
        daemon.notify("lease", reason, remaining_ms)
        assert read_line(process.stderr) == f"lptctl: LPT1 will be taken away {told}"
        out, err = process.communicate("\n")
    assert (process.returncode, out, err) == (5, "", "")


def test_a_revoked_port_can_be_ignored() -> None:
    with (
        scripted_daemon() as daemon,
        started("run", "--on-lost", "ignore", *python(WAITS_FOR_A_LINE), url=daemon.url) as process,
    ):
        read_line(process.stdout)
        daemon.notify("revoked", "administrator: left over the weekend\x1b[31m")
        line = read_line(process.stderr)
        result = process.communicate("\n")
    assert line == (
        "lptctl: the port was lost, the command goes on without it: administrator: left over the weekend\\x1b[31m"
    )
    assert (process.returncode, *result) == (5, "", "")


def test_an_owner_that_has_only_just_gone_is_named_by_what_the_daemon_said(lptctl: Lptctl) -> None:
    too_late = RequestError(Status.STATUS_IO_TIMEOUT, 'session 7 ("a\x07b", anonymous) owns port LPT1; timeout_ms is 0')
    with scripted_daemon(status={"port": "LPT1", "owner": None}, PARALLEL_PORT_ALLOCATE=too_late) as daemon:
        code, _, err = lptctl.fails("write", "--no-wait", "data", "1", url=daemon.url)
    assert code == 4
    assert 'was not got: session 7 ("a\\x07b", anonymous) owns port LPT1; timeout_ms is 0; wait' in err


@pytest.mark.parametrize("command", [("run", "--no-wait", "--", "true"), ("write", "--no-wait", "data", "1")])
@pytest.mark.parametrize(
    ("status", "why"),
    [
        ({"port": "LPT1", "owner": None, "paused": "a cable"}, "it is paused (a cable)"),
        ({"port": "LPT1", "owner": None, "paused": ""}, "it is paused (no reason was given)"),
        ({"port": "LPT1", "owner": None, "paused": None, "draining": True}, "its daemon grants nobody new"),
        ({"port": "LPT1", "owner": None}, "its owner has only just gone"),
    ],
)
def test_why_a_port_that_nobody_owns_was_not_got(
    lptctl: Lptctl, command: tuple[str, ...], status: dict[str, object], why: str
) -> None:
    too_late = RequestError(Status.STATUS_IO_TIMEOUT, "")
    with scripted_daemon(status=status, PARALLEL_PORT_ALLOCATE=too_late) as daemon:
        result = lptctl.fails(*command, url=daemon.url)
    assert result == (4, "", f"lptctl: LPT1 was not got: {why}; wait longer with --timeout\n")


def test_a_killed_lptctl_leaves_the_port_free(url: str) -> None:
    with blocking.open_port(url) as port, started("run", *python(WAITS_FOR_A_LINE), url=url) as process:
        command = int(read_line(process.stdout))
        process.kill()
        wait_until(lambda: port.status()["owner"] is None)
        os.kill(command, signal.SIGKILL)


@pytest.mark.parametrize("command", [("run", "--", "true"), ("write", "data", "1")])
def test_whoever_would_wait_for_the_run_around_it_is_refused(
    lptctl: Lptctl, url: str, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    """A second session inside of `run` would wait for the first, and that for the command."""
    with blocking.open_port(url) as port, port.allocated() as grant:
        monkeypatch.setenv("LPT_GRANT", str(grant))
        result = lptctl.fails(*command, url=url)
    assert result.code == 4
    assert "LPT1 is held by the `lptctl run` around this command" in result.err
    assert lptctl(*command, url=url).code == 0  # of a run that is over


def test_a_run_around_it_of_another_port_is_none_of_its_business(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from lptctl.common import grant_around

    monkeypatch.setenv("LPT_URL", url)
    monkeypatch.setenv("LPT_GRANT", "7")
    assert grant_around(url) == 7
    assert grant_around("lpt://127.0.0.1:1/LPT1") is None
    monkeypatch.setenv("LPT_GRANT", "")
    assert grant_around(url) is None


def test_what_it_holds_is_not_inherited_by_the_command(url: str) -> None:
    """The connection is lptctl's alone: a command that outlives it does not keep the port."""
    source = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {WAITS_FOR_A_LINE!r}])"
    with blocking.open_port(url) as port, started("run", *python(source), url=url) as process:
        read_line(process.stdout)  # it is there
        try:
            assert process.wait(BOUND_S) == 0
            assert port.status()["owner"] is None
        finally:
            process.communicate("\n")  # what is left ends
