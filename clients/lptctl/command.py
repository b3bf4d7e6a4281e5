"""A command that lptctl runs in the foreground, transparently, as flock(1) and timeout(1) do.

The command gets the standard streams, the signals that are ignored and those that are blocked as lptctl got them; but
SIGPIPE and SIGXFSZ, which Python ignores before anybody can see how they were, and SIGCHLD, always with their defaults.
What it leaves running is adopted by lptctl, reaped and listed (on Linux, with /proc); so lptctl may be the first
process of a container.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import trio

from lptctl import outcome, prctl, signals

# Passed on to the command, where the system has them.
_PASSED_ON: Final = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2")
_FROM_KEYBOARD: Final = ("SIGINT", "SIGQUIT")
# What the command leaves running may take so long to end before it is listed.
_LEFT_BEHIND_S: Final = 0.1
_LOOK_INTERVAL_S: Final = 0.01
_LISTED_MAX: Final = 4  # of those


class Command:
    """One command, and what it started.

    With `dies_with_us` it gets SIGTERM when this process dies (on Linux, and unless it gets other rights by its exec).

    Attributes:
        has_started: it runs or has run.
    """

    def __init__(self, arguments: Sequence[str], *, dies_with_us: bool = True) -> None:
        self._arguments = list(arguments)
        self._dies_with_us = dies_with_us
        self._process: subprocess.Popen[bytes] | None = None
        self._ended = trio.Event()
        self._before: set[int] = set()  # children that this process has had before it was lptctl
        self._early: set[int] = set()  # signals from before it started: those of the keyboard have not reached it
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())

    @property
    def has_started(self) -> bool:
        """Whether it runs or has run."""
        return self._process is not None

    @property
    def returncode(self) -> int | None:
        """How it ended, as subprocess tells it: -n is by signal n. None before."""
        return None if self._process is None else self._process.poll()

    def start(self, variables: Mapping[str, str] | None = None) -> None:
        """Start it, with these in its environment. Raises Failure."""
        self._before = _children()
        try:
            self._process = subprocess.Popen(  # noqa: S603 - running it is what this is for
                self._arguments,
                env={**os.environ, **(variables or {})},
                preexec_fn=self._preparation(),  # calls the system and nothing else
            )
        except OSError as exc:
            raise _not_started(self._arguments[0], exc) from exc

    async def attend(self, job: Callable[[trio.Nursery], Awaitable[int]]) -> int:
        """Do the job, which runs this command, and pass signals on meanwhile; then list what is left running.

        The result of the job, or -n for the signal that came before the command had started. The job's error is raised;
        its nursery ends with it.
        """
        result = 0
        error: Exception | None = None

        async def do() -> None:
            nonlocal result, error
            try:
                result = await job(nursery)
                await self._tell_left_behind()
            except Exception as exc:
                error = exc  # raised below: a nursery would wrap it
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            prctl.adopt_orphans(True)
            nursery.start_soon(do)
            result = -await self._pass_signals()
            nursery.cancel_scope.cancel()
        prctl.adopt_orphans(False)
        if error is not None:
            raise error
        return result

    async def run(self, variables: Mapping[str, str] | None = None) -> int:
        """Start it and wait for its end, being attended to: its returncode. Raises Failure."""
        self.start(variables)
        return await self.wait()

    async def wait(self) -> int:
        """Wait for its end, being attended to: its returncode."""
        await self._ended.wait()
        assert self._process is not None
        return int(self._process.returncode)

    async def _pass_signals(self) -> int:
        """Pass signals on to it, until this is cancelled; return the one that comes before it has started."""
        numbers = [*signals.heeded(_PASSED_ON), signal.SIGCHLD]  # that even if ignored: to wait for a child would fail
        with signals.received(numbers, self._note_early) as receiver:
            return await self._pass_on(receiver)

    async def _pass_on(self, receiver: AsyncIterator[int]) -> int:
        async for number in receiver:
            if number == signal.SIGCHLD:
                self._reap()
            elif self._process is None:
                return number
            elif number in self._early or not self._has_come_from_keyboard(number):
                self._early.discard(number)
                self._process.send_signal(number)
        raise AssertionError("signals end when the receiver is closed, and that is after this")

    def _note_early(self, number: int) -> None:
        if self._process is None:
            self._early.add(number)

    async def end(self, kill_after_s: float) -> None:
        """End it, once it has been started: SIGTERM, and SIGKILL if that is ignored."""
        assert self._process is not None
        self._process.terminate()
        with trio.move_on_after(kill_after_s):
            await self.wait()
        if self.returncode is None:
            outcome.say(f"the command did not heed SIGTERM for {kill_after_s:g} s, it is killed")
            self._process.kill()
            await self.wait()

    async def _tell_left_behind(self) -> None:
        """List what it left running, except what ends soon."""
        with trio.move_on_after(_LEFT_BEHIND_S):
            while _children() - self._before:
                await trio.sleep(_LOOK_INTERVAL_S)
                self._reap()
        left = sorted(_children() - self._before)
        if left:
            names = ", ".join(f"{number} ({_name_of(number)})" for number in left[:_LISTED_MAX])
            more = f" and {len(left) - _LISTED_MAX} more" if len(left) > _LISTED_MAX else ""
            outcome.say(f"the command has ended, and left running: {names}{more}")

    def _preparation(self) -> Callable[[], None]:
        """What the child does before it becomes the command."""
        mask, parent = self._mask, os.getpid()
        die_with_parent = prctl.dying_with_parent(signal.SIGTERM) if self._dies_with_us else None

        def prepare() -> None:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            if die_with_parent is not None:
                die_with_parent()
                if os.getppid() != parent:  # it has died before it could be known
                    os._exit(outcome.SIGNAL_BASE + signal.SIGTERM)

        return prepare

    def _reap(self) -> None:
        """Take note of whatever has ended: the command, and what it has left to us."""
        if self._process is not None and self._process.poll() is not None:
            self._ended.set()
        # Those of the program that became lptctl by exec are not ours to reap; the first process reaps all.
        theirs: set[int] = set() if os.getpid() == 1 else self._before
        for number in _children() - theirs:
            if self._process is None or number != self._process.pid:
                os.waitpid(number, os.WNOHANG)

    def _has_come_from_keyboard(self, number: int) -> bool:
        """Whether a signal is one that the terminal has sent to the command as well: twice would be once too often.

        It is taken to be when the terminal's foreground is this process group, and the command is in it.
        """
        assert self._process is not None
        if signal.Signals(number).name not in _FROM_KEYBOARD:
            return False
        try:
            terminal = os.open(os.ctermid(), os.O_RDONLY | os.O_NOCTTY)
        except OSError:
            return False  # there is none
        try:
            return os.tcgetpgrp(terminal) == os.getpgrp() == os.getpgid(self._process.pid)
        except OSError:
            return False  # it is gone, or the command is
        finally:
            os.close(terminal)


def run_alone(arguments: Sequence[str]) -> int:
    """Run a command to its end, outside of trio: its returncode. Raises Failure."""
    command = Command(arguments)

    async def run(_nursery: trio.Nursery) -> int:
        return await command.run()

    return trio.run(command.attend, run)


def _not_started(name: str, error: OSError) -> outcome.Failure:
    if not isinstance(error, FileNotFoundError):
        return outcome.Failure(f"{name}: cannot be executed: {error.strerror}", outcome.CANNOT_EXECUTE)
    if os.sep in name and os.path.exists(name):
        return outcome.Failure(
            f"{name}: the interpreter that its first line names, after #!, does not exist", outcome.NO_SUCH_COMMAND
        )
    return outcome.Failure(f"{name}: no such command; check its name and PATH", outcome.NO_SUCH_COMMAND)


def _children() -> set[int]:
    """The processes whose parent this is, as far as this system tells."""
    return {int(number) for path in Path("/proc/self/task").glob("*/children") for number in _text(path).split()}


def _name_of(number: int) -> str:
    return _text(Path(f"/proc/{number}/comm")).rstrip("\n")


def _text(path: Path) -> str:
    """What the system tells there; nothing if the process or thread is gone."""
    try:
        return path.read_text(encoding="utf-8", errors="backslashreplace")
    except OSError:
        return ""
