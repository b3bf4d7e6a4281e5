"""`lptd demo`: a daemon, three client processes that contend for its port, and a look at what happens.

Everything is real: processes, sockets, signals, a SIGKILL. Only the port is simulated. Each client is this module run
with a name and a URL; it tells what happens to it in JSON lines, and the parent shows them.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import trio

if TYPE_CHECKING:
    from rich.table import Table

NAMES: Final = ("anna", "ben", "cleo")
PULSE_HZ: Final = 25
KILL_AFTER_S: Final = 4.0
STOP_AFTER_S: Final = 9.0
GIVE_UP_AFTER_S: Final = 40.0
_SHOWN_HAPPENINGS: Final = 12


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
    """Run it all; the exit code: 0 if every account is balanced and the daemon stopped in order."""
    return trio.run(partial(_Demo(is_live=not plain and sys.stdout.isatty()).run))


class _Demo:
    def __init__(self, *, is_live: bool) -> None:
        self._is_live = is_live
        self._accounts: dict[str, Account] = {}
        self._happenings: deque[str] = deque(maxlen=_SHOWN_HAPPENINGS)
        self._start = trio.current_time

    async def run(self) -> int:
        began = trio.current_time()
        self._start = lambda: trio.current_time() - began
        with trio.move_on_after(GIVE_UP_AFTER_S):
            daemon, url = await _start_daemon()
            try:
                await self._watch(url)
            finally:
                daemon.send_signal(signal.SIGTERM)
                with trio.move_on_after(10):
                    await daemon.wait()
            return self._conclude(daemon)
        print(f"the demo did not end within {GIVE_UP_AFTER_S:.0f} s", file=sys.stderr)
        return 1

    async def _watch(self, url: str) -> None:
        self._happened("lptd", f"listening on {url}, {PULSE_HZ} interrupts a second")
        async with trio.open_nursery() as nursery:
            for name in NAMES:
                process = await _start_client(name, url)
                self._accounts[name] = Account(name, process)
                nursery.start_soon(self._follow, self._accounts[name])
            nursery.start_soon(self._show)
            try:
                await trio.sleep(KILL_AFTER_S)
                await self._kill_owner()
                await trio.sleep(max(0.0, STOP_AFTER_S - self._start()))
                for account in self._accounts.values():
                    if account.process.stdin is not None:
                        await account.process.stdin.aclose()  # that is how a client is told to end
                for account in self._accounts.values():
                    await account.process.wait()
            finally:
                for account in self._accounts.values():
                    if account.process.returncode is None:
                        account.process.kill()
            await trio.sleep(0.2)  # the last display
            nursery.cancel_scope.cancel()

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
            print(line, flush=True)

    async def _show(self) -> None:
        if not self._is_live:
            return
        from rich.live import Live

        with Live(self._table(), auto_refresh=False, screen=False) as live:
            try:
                while True:
                    live.update(self._table(), refresh=True)
                    await trio.sleep(0.1)
            finally:
                live.update(self._table(), refresh=True)

    def _table(self) -> Table:
        from rich.table import Table

        table = Table(title="three clients, one parallel port", caption="\n".join(self._happenings))
        table.caption_justify = "left"
        table.caption_style = ""
        for heading in ("client", "state", "grants", "interrupts", "port checks"):
            table.add_column(heading, min_width=15)
        styles = {"owns the port": "bold green", "killed": "bold red"}
        for each in self._accounts.values():
            numbers = (str(each.grants), str(each.received), str(each.port_checks))
            table.add_row(each.name, each.state, *numbers, style=styles.get(each.state, ""))
        return table

    def _conclude(self, daemon: trio.Process) -> int:
        print(f"\n{'client':<10}{'generated':>10}{'received':>10}{'lost':>6}   account")
        for each in self._accounts.values():
            verdict = "generated = received + lost" if each.is_balanced else "DOES NOT ADD UP"
            if each.was_killed:
                verdict += " (up to its death)"
            print(f"{each.name:<10}{each.generated:>10}{each.received:>10}{each.lost:>6}   {verdict}")
        is_good = all(each.is_balanced for each in self._accounts.values())
        if daemon.returncode != 0:
            print(f"the daemon ended with exit code {daemon.returncode}", file=sys.stderr)
        return 0 if is_good and daemon.returncode == 0 else 1


async def _start_daemon() -> tuple[trio.Process, str]:
    """A daemon with a simulated port on loopback, and its URL."""
    options = ["serve", "--simulate", "--listen", "lpt://127.0.0.1:0", "--pulse-hz", str(PULSE_HZ)]
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "lpt_service", *options, "--log-level", "error"],
        stdout=subprocess.PIPE,
        env=_environment(),
    )
    assert process.stdout is not None
    line = b""
    while not line.endswith(b"\n"):
        data = await process.stdout.receive_some()
        if not data:
            raise SystemExit("lptd: the demo's daemon did not start")
        line += data
    return process, line.decode().removeprefix("listening on ").strip()


async def _start_client(name: str, url: str) -> trio.Process:
    command = [sys.executable, "-m", "lpt_service.demo", name, url]
    return await trio.lowlevel.open_process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=_environment())


def _environment() -> dict[str, str]:
    """The variables of this process, and its path of modules: the Debian package puts its own there."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


# The client's side


def _tell(what: str, **values: object) -> None:
    print(json.dumps({"what": what, **values}), flush=True)


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


if __name__ == "__main__":
    trio.run(_client, sys.argv[1], sys.argv[2])
