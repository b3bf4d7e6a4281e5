"""`lptd demo`: a daemon, three client processes that contend for its port, and a look at what happens.

Everything is real: processes, sockets, signals, a SIGKILL. Only the port is simulated. Each client is this module run
with a name and a URL; it tells what happens to it in JSON lines, and the parent shows them.

However the parent ends, the others end with it: each ends when its standard input does, which the parent alone holds.
They are in sessions of their own, so that the parent alone hears of Ctrl-C and of a terminal that closes.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import trio

from lpt_service import ending

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

NAMES: Final = ("anna", "ben", "cleo")
PULSE_HZ: Final = 25
KILL_AFTER_S: Final = 4.0
STOP_AFTER_S: Final = 9.0
GIVE_UP_AFTER_S: Final = 40.0
_END_WITHIN_S: Final = 10.0  # a process whose standard input has ended; then it is killed
_SHOWN_HAPPENINGS: Final = 12
_LINES_BESIDE: Final = 11  # of the live display, beside the happenings


@dataclass
class Account:
    """What one client has told, and whether it adds up."""

    name: str
    process: trio.Process
    state: str = "starting"
    first_seq: int = 0
    next_seq: int = 0
    received: int = 0
    lost: int = 0
    grants: int = 0
    port_checks: int = 0
    was_killed: bool = False
    is_closed: bool = False

    @property
    def generated(self) -> int:
        """Interrupts from its connect to its disconnect (or to its last word, if it was killed)."""
        return self.next_seq - self.first_seq

    @property
    def is_balanced(self) -> bool:
        """Whether generated = received + lost, told to the end."""
        return self.generated == self.received + self.lost > 0 and (self.is_closed or self.was_killed)


def run_demo(*, plain: bool) -> int:
    """Run it all; the exit code: 0 if every account is balanced and the daemon stopped in order.

    A signal ends this process by that signal, once those that it has started are gone.
    """
    show = _Demo(is_live=not plain and sys.stdout.isatty())
    code = trio.run(show.run)
    if show.ended_by is not None:
        ending.die_of(show.ended_by)
    return code if show.output_error is None else ending.output_failure(show.output_error)


class _Demo:
    """One run.

    Attributes:
        ended_by: the signal that ended it early.
        output_error: why its output was not taken, which ends it, too.
    """

    def __init__(self, *, is_live: bool) -> None:
        self.ended_by: int | None = None
        self.output_error: OSError | None = None
        self._is_live = is_live
        self._has_failed = False
        self._accounts: dict[str, Account] = {}
        self._happenings: deque[str] = deque(maxlen=_SHOWN_HAPPENINGS)
        self._start = trio.current_time
        self._scope = trio.CancelScope()

    async def run(self) -> int:
        began = trio.current_time()
        self._start = lambda: trio.current_time() - began
        with trio.open_signal_receiver(*ending.SIGNALS) as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._heed, signals)
                self._scope.deadline = began + GIVE_UP_AFTER_S
                with self._scope:
                    code = await self._run_all()
                nursery.cancel_scope.cancel()
        if not self._scope.cancelled_caught:
            return code
        if self.ended_by is None and self.output_error is None and not self._has_failed:
            ending.complain(f"the demo did not end within {GIVE_UP_AFTER_S:.0f} s")
        return ending.EXIT_FAILED

    async def _heed(self, signals: AsyncIterator[int]) -> None:
        async for number in signals:
            self.ended_by = number
            self._scope.cancel()

    async def _run_all(self) -> int:
        async with _running(["-m", "lpt_service", *_DAEMON]) as daemon:
            url = await _announced(daemon)
            if url is not None:
                await self._watch(url)
        return self._conclude(daemon.returncode)

    async def _watch(self, url: str) -> None:
        self._happened("lptd", f"listening on {url}, {PULSE_HZ} interrupts a second")
        async with trio.open_nursery() as nursery:
            for name in NAMES:
                nursery.start_soon(self._run_client, name, url)
            nursery.start_soon(self._show)
            await trio.sleep(KILL_AFTER_S)
            await self._kill_owner()
            await trio.sleep(max(0.0, STOP_AFTER_S - self._start()))
            for account in self._accounts.values():
                assert account.process.stdin is not None
                await account.process.stdin.aclose()  # which makes a client end
            for account in self._accounts.values():
                await account.process.wait()
            await trio.sleep(0.2)  # the last display
            nursery.cancel_scope.cancel()

    async def _run_client(self, name: str, url: str) -> None:
        async with _running(["-m", "lpt_service.demo", name, url, str(os.getpid())]) as process:
            account = self._accounts[name] = Account(name, process)
            self._accounts = dict(sorted(self._accounts.items()))  # whichever has started first
            await self._follow(account)
        if not account.was_killed and not account.is_closed:
            self._has_failed = True
            ending.complain(f"the demo's client {name} ended with exit code {process.returncode}")
            self._scope.cancel()

    async def _kill_owner(self) -> None:
        """SIGKILL the owner, at a moment when somebody waits."""
        while True:
            owner = next((each for each in self._accounts.values() if each.state == "owns the port"), None)
            if owner is not None and any(each.state.startswith("waits") for each in self._accounts.values()):
                owner.process.kill()
                owner.was_killed = True
                owner.state = "killed"
                self._happened(owner.name, "is killed while it owns the port (SIGKILL)")
                return
            await trio.sleep(0.02)

    async def _follow(self, account: Account) -> None:
        """Read what a client tells, until it ends."""
        assert account.process.stdout is not None
        rest = b""
        async for data in account.process.stdout:
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                self._take(account, json.loads(line))

    def _take(self, account: Account, told: dict[str, Any]) -> None:
        what = told["what"]
        if what == "interrupt":
            account.received += told["count"]
            account.next_seq = told["seq"] + told["count"]
            return
        if what == "connected":
            account.first_seq = account.next_seq = told["first_seq"]
            text = f"connects its interrupt routine, and hears from number {told['first_seq']} on"
        elif what == "queued":
            account.state = f"waits, place {told['position']}"
            text = f"waits at place {told['position']}"
        elif what == "owner":
            account.state = "owns the port"
            account.grants += 1
            text = f"owns the port, grant {told['grant']}"
        elif what == "freed":
            account.state = "rests"
            text = "frees the port"
        elif what == "port_check":
            account.port_checks += 1
            text = "is told that the port is idle (port check)"
        else:
            account.state = "done"
            account.is_closed = True
            account.lost, account.next_seq = told["lost"], told["end_seq"]
            text = "disconnects"
        self._happened(account.name, text)

    def _happened(self, who: str, text: str) -> None:
        line = f"{self._start():6.2f} s  {who:<5} {text}"
        if self._is_live:
            self._happenings.append(line)
        else:
            self._print(line)

    def _print(self, line: str) -> None:
        try:
            print(line, flush=True)
        except OSError as exc:
            self._fail(exc)

    def _fail(self, exc: OSError) -> None:
        """Nobody sees it any more: end."""
        self.output_error = exc
        self._scope.cancel()

    async def _show(self) -> None:
        if not self._is_live:
            return
        from rich.console import Console
        from rich.live import Live

        console = Console()
        try:
            with Live(self._picture(console), console=console, auto_refresh=False) as live:
                try:
                    while True:
                        live.update(self._picture(console), refresh=True)
                        await trio.sleep(0.1)
                finally:
                    live.update(self._picture(console), refresh=True)
        except OSError as exc:
            self._fail(exc)

    def _picture(self, console: Console) -> RenderableType:
        """The table, and below it as many of the latest happenings as the terminal has room for."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(title="three clients, one parallel port")
        # The width of the longest state, so that nothing jumps; the whole fits into 60 columns.
        for heading, width in (("client", 6), ("state", 14), ("grants", 6), ("interrupts", 10), ("port\nchecks", 6)):
            table.add_column(heading, min_width=width)
        styles = {"owns the port": "bold green", "killed": "bold red"}
        for each in self._accounts.values():
            numbers = (str(each.grants), str(each.received), str(each.port_checks))
            table.add_row(each.name, each.state, *numbers, style=styles.get(each.state, ""))
        room = max(1, console.height - _LINES_BESIDE)
        latest = "\n".join(list(self._happenings)[-room:])
        return Group(table, Text(latest, no_wrap=True, overflow="ellipsis"))

    def _conclude(self, daemon_exit_code: int | None) -> int:
        """Show every account; the exit code."""
        self._print(f"\n{'client':<7}generated = received +  lost")
        for each in self._accounts.values():
            verdict = "adds up" if each.is_balanced else "DOES NOT ADD UP"
            if each.was_killed:
                verdict += ", killed"
            self._print(f"{each.name:<7}{each.generated:>9}   {each.received:>8}   {each.lost:>5}  {verdict}")
        if daemon_exit_code != 0:
            ending.complain(f"the demo's daemon ended with exit code {daemon_exit_code}")
        is_good = len(self._accounts) == len(NAMES) and all(each.is_balanced for each in self._accounts.values())
        return 0 if is_good and daemon_exit_code == 0 else ending.EXIT_FAILED


# A daemon with a simulated port on loopback.
_DAEMON: Final = (
    *("serve", "--simulate", "--listen", "lpt://127.0.0.1:0", "--pulse-hz", str(PULSE_HZ)),
    *("--log-level", "error", "--until-eof"),
)


@asynccontextmanager
async def _running(arguments: list[str]) -> AsyncIterator[trio.Process]:
    """A process of this Python; after the block its standard input ends, and it with that, or it is killed."""
    process = await trio.lowlevel.open_process(
        [sys.executable, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=_environment(),
        start_new_session=True,
    )
    try:
        yield process
    finally:
        assert process.stdin is not None
        assert process.stdout is not None
        with trio.CancelScope(shield=True):
            await process.stdin.aclose()
            await process.stdout.aclose()
            with trio.move_on_after(_END_WITHIN_S):
                await process.wait()
            if process.returncode is None:
                process.kill()
                await process.wait()


async def _announced(daemon: trio.Process) -> str | None:
    """The URL that a daemon prints when it serves; None if it ends first."""
    assert daemon.stdout is not None
    line = b""
    while not line.endswith(b"\n"):
        data = await daemon.stdout.receive_some()
        if not data:
            return None
        line += data
    return line.decode().removeprefix("listening on ").strip()


def _environment() -> dict[str, str]:
    """The variables of this process, and its path of modules: the Debian package puts its own there."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


# The client's side


def _tell(what: str, **values: object) -> None:
    try:
        print(json.dumps({"what": what, **values}), flush=True)
    except OSError:  # the parent has ended, and so does this
        os._exit(ending.EXIT_FAILED)


async def _client(name: str, url: str) -> None:
    """Listen, and allocate and free the port in turns, until standard input ends."""
    import lpt_client

    def isr(event: lpt_client.Interrupt, context: object) -> None:
        _tell("interrupt", seq=event.seq, count=event.count)

    async with lpt_client.open_port(url, client=name) as port:
        async with port.connect_interrupt(isr, None, deferred=lambda context: _tell("port_check")) as interrupts:
            _tell("connected", first_seq=interrupts.first_seq)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_contend, port)
                await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)
                nursery.cancel_scope.cancel()
        _tell("account", end_seq=interrupts.next_seq, lost=interrupts.lost)


async def _contend(port: Any) -> None:
    while True:
        async with port.allocated(on_queued=lambda position: _tell("queued", position=position)) as grant:
            _tell("owner", grant=grant)
            for _ in range(4):
                await port.pulse(0x08, width_us=1000)  # D3 is wired to nAck: an interrupt for everybody
                await trio.sleep(0.1)
        _tell("freed")
        await trio.sleep(random.uniform(0.2, 1.6))  # noqa: S311 - not a secret


def _main(name: str, url: str, parent: str) -> None:
    try:
        trio.run(_client, name, url)
    except (Exception, BaseExceptionGroup):
        if os.getppid() == int(parent):
            raise
        # Else the daemon, too, has lost its parent, and was gone before this one.


if __name__ == "__main__":
    _main(*sys.argv[1:])
