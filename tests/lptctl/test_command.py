"""lptctl run as a tool among tools: what it inherits and hands on, and how it ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lptctl.processes import (
    BOUND_S,
    LPTCTL,
    Lptctl,
    environment,
    finish,
    read_line,
    read_terminal_until,
    running_daemon,
    started,
    wait_until,
)

pytest.importorskip("click")
pytest.importorskip("trio")
from lpt_client import blocking
from tests.lptctl.test_run import SLEEPS, WAITS_FOR_A_LINE, is_alive, python

is_linux = pytest.mark.skipif(sys.platform != "linux", reason="by prctl(2)")

# Runs what follows on its command line after a change of its signals.
PRELUDE = "import os, signal, sys; {}; os.execvp(sys.argv[1], sys.argv[1:])"
SIGNALS = "print(open('/proc/self/status').read())"


@pytest.fixture(scope="module")
def own_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A daemon on a Unix socket: there its own user is an administrator."""
    with running_daemon(listen=f"lpt+unix://{tmp_path_factory.mktemp('socket')}/s") as daemon:
        yield daemon.url


def prelude(source: str) -> str:
    """A shell's line that runs lptctl after this Python."""
    return f"""exec {sys.executable} -c '{PRELUDE.format(source)}' "$@" """


def bash(script: str) -> str:
    """A shell's line that has bash run this script, to which lptctl is "$@"."""
    return f"""exec bash -c '{script}' bash "$@" """


# What it inherits


@pytest.mark.parametrize(
    "source",
    [
        "signal.signal(signal.SIGCHLD, signal.SIG_IGN)",
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})",
        "signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())",
        "[signal.signal(n, signal.SIG_IGN) for n in range(1, 32) if n not in (9, 19)]",
    ],
    ids=["SIGCHLD ignored", "SIGCHLD blocked", "all blocked", "all ignored"],
)
def test_the_exit_code_whatever_was_ignored_or_blocked(url: str, source: str) -> None:
    with started("run", "--", "sh", "-c", "exit 42", url=url, script=prelude(source)) as process:
        assert finish(process) == (42, "", "")


def test_a_drain_waits_for_its_command_with_sigchld_ignored(own_url: str) -> None:
    source = prelude("signal.signal(signal.SIGCHLD, signal.SIG_IGN)")
    with started("drain", "--", "sh", "-c", "exit 42", url=own_url, script=source) as process:
        assert finish(process) == (42, "", "")


def masks(status: str) -> tuple[int, int]:
    """Which signals a process has blocked, and which it ignores, as /proc has them."""
    blocked, ignored = re.findall(r"^Sig(?:Blk|Ign):\s*(\w+)", status, re.MULTILINE)
    return int(blocked, 16), int(ignored, 16)


@is_linux
def test_ignored_and_blocked_signals_are_the_commands_too_and_others_are_not(url: str) -> None:
    change = "signal.signal(2, signal.SIG_IGN); signal.signal(1, signal.SIG_IGN); signal.pthread_sigmask(0, {10})"
    with started("run", *python(SIGNALS), url=url, script=prelude(change)) as process:
        result = finish(process)
    blocked, ignored = masks(result.out)
    # Whoever runs the tests may have blocked and ignored others, as make does, and a shell in the background.
    blocked_here, ignored_here = masks(Path("/proc/self/status").read_text(encoding="utf-8"))
    assert blocked == blocked_here | 1 << (signal.SIGUSR1 - 1)
    of_python = 1 << (signal.SIGPIPE - 1) | 1 << (signal.SIGXFSZ - 1)  # of the command, which is Python, too
    assert ignored | of_python == ignored_here | of_python | 1 << (signal.SIGINT - 1) | 1 << (signal.SIGHUP - 1)


@is_linux
def test_a_command_always_gets_the_default_of_the_signals_that_python_or_lptctl_changes(url: str) -> None:
    numbers = [int(number) for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD)]
    script = prelude(f"[signal.signal(n, signal.SIG_IGN) for n in {numbers}]")
    with started("run", "--", "grep", "SigIgn", "/proc/self/status", url=url, script=script) as process:
        ignored = int(finish(process).out.split()[1], 16)
    assert not any(ignored & 1 << (number - 1) for number in numbers)


def test_a_blocked_signal_still_ends_the_waiting(url: str) -> None:
    with blocking.open_port(url) as port, port.allocated():
        script = prelude("signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())")
        with started("run", "--", "true", url=url, script=script) as process:
            assert read_line(process.stderr).endswith("place 1")
            process.terminate()
            assert finish(process) == (-signal.SIGTERM, "", "")


# How it ends


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT, signal.SIGSEGV])
def test_it_dies_of_what_its_command_died_of(url: str, number: signal.Signals) -> None:
    with started("run", "--", "sh", "-c", f"kill -{number:d} $$", url=url) as process:
        assert finish(process) == (-number, "", "")


def test_a_command_that_ends_with_a_code_of_128_and_more_is_no_signal(url: str) -> None:
    with started("run", *python("raise SystemExit(130)"), url=url) as process:
        assert finish(process) == (130, "", "")


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "--", "cat"),
        ("listen", "--json", "--count", "9"),
        ("status", "--watch", "--interval", "0.05"),
        ("drain", "--", "cat"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_ctrl_c_ends_a_shells_loop(arguments: tuple[str, ...], own_url: str) -> None:
    terminal, inner = os.openpty()
    script = bash('while echo turn; do "$@"; done; echo goes on')
    with blocking.open_port(own_url) as port:
        wait_until(lambda: port.status()["sessions"] == 1)  # those of the test before are gone
        with started(*arguments, url=own_url, on_terminal=inner, script=script) as process:
            os.close(inner)
            read_terminal_until(terminal, "turn")
            wait_until(lambda: port.status()["sessions"] == 2)
            if arguments[0] == "run":
                wait_until(lambda: port.status()["owner"] is not None)
            os.write(terminal, b"\x03")
            shown = read_terminal_until(terminal, "never shown")
            process.wait(BOUND_S)
    os.close(terminal)
    assert "turn" not in shown
    assert "goes on" not in shown
    assert "Traceback" not in shown


# Killed itself


@is_linux
def test_a_killed_lptctl_takes_its_command_along(url: str) -> None:
    with started("run", *python(SLEEPS), url=url) as process:
        assert is_alive(int(read_line(process.stdout)))
        process.kill()
        assert process.communicate(timeout=BOUND_S) == ("", "")  # nobody has the other ends any more


def test_a_command_that_is_to_go_on_without_the_port_outlives_lptctl(url: str) -> None:
    with started("run", "--on-lost", "ignore", *python(WAITS_FOR_A_LINE), url=url) as process:
        command = int(read_line(process.stdout))
        process.kill()
        process.wait(BOUND_S)
        assert is_alive(command)
        assert process.communicate("\n", BOUND_S) == ("", "")


def test_ctrl_c_is_passed_on_to_a_command_in_a_session_of_its_own(url: str) -> None:
    """The terminal does not reach it."""
    source = "import os, signal; os.setsid(); print('ready', flush=True); signal.pause()"
    terminal, inner = os.openpty()
    with started("run", *python(source), url=url, on_terminal=inner) as process:
        os.close(inner)
        read_terminal_until(terminal, "ready")
        os.write(terminal, b"\x03")
        read_terminal_until(terminal, "never shown")
        assert process.wait(BOUND_S) == -signal.SIGINT
    os.close(terminal)


# Job control


def test_ctrl_z_stops_it_with_its_command_and_it_goes_on(url: str) -> None:
    terminal, inner = os.openpty()
    script = 'set -m; "$@"; echo stopped $?; fg; echo ended $?'
    with started("run", *python(WAITS_FOR_A_LINE), url=url, on_terminal=inner, script=bash(script)) as process:
        os.close(inner)
        command = int(re.findall(r"\d+", read_terminal_until(terminal, "\n"))[0])
        os.write(terminal, b"\x1a")
        read_terminal_until(terminal, f"stopped {128 + signal.SIGTSTP}")
        assert is_alive(command)
        os.write(terminal, b"\n")
        read_terminal_until(terminal, "ended 5")
        process.wait(BOUND_S)
    os.close(terminal)


# What it leaves running


@is_linux
def test_what_outlives_the_command_is_told(url: str) -> None:
    with started("run", "--", "sh", "-c", "sleep 50 >&- 2>&- & echo $!; exit 3", url=url) as process:
        left = int(read_line(process.stdout))
        code, _, err = finish(process)
        assert is_alive(left)
        os.kill(left, signal.SIGKILL)
    assert code == 3
    assert err == f"lptctl: the command has ended, and left running: {left} (sleep)\n"


@is_linux
def test_what_ends_with_the_command_or_before_is_reaped_and_not_told(url: str) -> None:
    script = """(true &); sleep 0.01 & while ps -o stat= --ppid $PPID | grep -q Z; do :; done; exit 3"""
    with started("run", "--", "sh", "-c", script, url=url) as process:
        assert finish(process) == (3, "", "")


@is_linux
def test_children_of_whoever_became_lptctl_are_none_of_the_commands(url: str) -> None:
    with started("run", "--", "true", url=url, script='sleep 50 >&- 2>&- & echo $!; exec "$@"') as process:
        before = int(read_line(process.stdout))
        assert finish(process) == (0, "", "")
        os.kill(before, signal.SIGKILL)


def test_a_script_whose_interpreter_is_not_there_is_told_as_that(lptctl: Lptctl, url: str, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/no/such/interpreter\n", encoding="ascii")
    script.chmod(0o755)
    result = lptctl.fails("run", "--", str(script), url=url)
    assert result.code == 127
    assert "first line" in result.err


@pytest.mark.system
@is_linux
def test_as_the_first_process_of_a_container_it_reaps_and_passes_signals_on(url: str) -> None:
    script = """trap 'exit 7' TERM; (setsid sh -c 'sleep 0.1' &); while ps -eo stat= | grep -q Z; do :; done
        echo ready; while :; do sleep 0.01; done"""
    unshare = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc", "--kill-child"]
    with subprocess.Popen(
        [*unshare, *LPTCTL, "run", "--", "sh", "-c", script],
        env=environment(LPT_URL=url),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert read_line(process.stdout) == "ready"
        first = int(subprocess.check_output(["pgrep", "-P", str(process.pid)], text=True))
        os.kill(first, signal.SIGTERM)
        assert process.wait(BOUND_S) == 7
