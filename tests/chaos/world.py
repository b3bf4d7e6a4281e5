"""One daemon, the chaos before it, and everybody who uses it at the same time."""

from __future__ import annotations

import random
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType

from lpt_client import TlsOptions
from tests.certificates import options
from tests.chaos.ledger import Account, Ledger, Witness
from tests.chaos.processes import usage
from tests.chaos.proxy import ChaosProxy
from tests.chaos.terms import Terms
from tests.e2e.client import Account as RawAccount
from tests.e2e.client import RawClient, interrupts
from tests.e2e.daemons import DaemonProcess, eventually, is_clean, serving

# What a call may take beyond its stated time: two cores may be busy with much else. A call that hangs takes for ever.
SLACK_S = 60.0
# Between two looks at the queue of a port.
_LOOK_EVERY_S = 0.02
# Which part of the clients, where there is such a way.
_BY_UNIX_SOCKET = 0.1
_BY_TLS = 0.25


def _stack_of(thread: threading.Thread) -> str:
    frame = sys._current_frames().get(thread.ident or 0)
    return "" if frame is None else "".join(traceback.format_stack(frame))


class Patience:
    """Measures that no call of a client takes longer than it says."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.longest_s: dict[str, float] = {}
        self.stated_s: dict[str, float] = {}
        self.late: list[str] = []
        self._lock = threading.Lock()

    @contextmanager
    def within(self, what: str, stated_s: float) -> Iterator[None]:
        """Around a call that is to end, one way or the other, within so many seconds."""
        begun = time.monotonic()
        try:
            yield
        finally:
            took_s = time.monotonic() - begun
            with self._lock:
                self.calls[what] += 1
                self.longest_s[what] = max(took_s, self.longest_s.get(what, 0.0))
                self.stated_s[what] = max(stated_s, self.stated_s.get(what, 0.0))
                if took_s > stated_s + SLACK_S:
                    self.late.append(f"{what} took {took_s:.1f} s, it says {stated_s:.1f} s at the most")


class World:
    """The daemon of some terms, with observers on a connection of their own and a proxy for everybody else.

    Attributes:
        idle: what the daemon takes when nobody is there.
        failures: what went wrong in a thread, with its stack; once there is one, `is_over`.
    """

    def __init__(self, terms: Terms, seed: int) -> None:
        self.terms = terms
        self.seed = seed
        self.patience = Patience()
        self.done: Counter[str] = Counter()
        self.ledgers = {name: Ledger() for name in terms.port_names()}
        self.witnesses = {name: Witness() for name in terms.witnessed()}
        self._accounts: dict[str, deque[Account]] = {name: deque() for name in terms.port_names()}
        self.failures: list[str] = []
        self._stack = ExitStack()
        self._threads: list[threading.Thread] = []
        self._observers: list[threading.Thread] = []
        self._is_restarting = False
        self._is_over = threading.Event()
        self._is_observed = threading.Event()

    def __enter__(self) -> World:
        with ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            self.config_path = Path(folder, "lptd.toml")
            self.config_path.write_text(self.terms.text())
            self._start_daemon(stack)
            self.idle = usage(self.daemon.process.pid)
            self.address, *others = (each for each in self.daemon.addresses if isinstance(each, tuple))
            ways = dict.fromkeys([self.address, *others])  # each is there once for each port
            self.proxies = [
                stack.enter_context(ChaosProxy(each, self.seed + number)) for number, each in enumerate(ways)
            ]
            self._observers += [self._start(self._watch_queue, name) for name in self.ledgers]
            self._observers += [self._start(self._listen, name) for name in self.witnesses]
            self._stack = stack.pop_all()
        return self

    def _start_daemon(self, stack: ExitStack) -> None:
        lines = self.terms.listeners() * self.terms.ports
        self.daemon: DaemonProcess = stack.enter_context(serving("--config", str(self.config_path), lines=lines))

    def restart(self) -> None:
        """Stop the daemon in order, and start the next one. There must be no witness."""
        self._is_restarting = True
        assert self.daemon.stop() == 0
        for ledger in self.ledgers.values():
            ledger.begin_anew(time.monotonic_ns())
        self._start_daemon(self._stack)
        self._is_restarting = False
        self.done["restarts"] += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        self.stop()
        self._is_observed.set()
        for thread in self._observers:
            thread.join(SLACK_S)
        return self._stack.__exit__(kind, error, traceback)

    # Whoever takes part

    @property
    def is_over(self) -> bool:
        """Everybody is to come to an end."""
        return self._is_over.is_set()

    def way(self, chance: random.Random, port_name: str) -> tuple[str, TlsOptions | None]:
        """How somebody is to reach a port: mostly over TCP, through a proxy; by the Unix socket there is none."""
        terms = self.terms
        if terms.unix_socket and chance.random() < _BY_UNIX_SOCKET:
            return f"lpt+unix://{terms.unix_socket}#{port_name}", None
        is_tls = terms.certificates is not None and chance.random() < _BY_TLS
        host, tcp_port = self.proxies[is_tls].address
        url = f"{'lpts' if is_tls else 'lpt'}://{host}:{tcp_port}/{port_name}"
        return url, options(terms.certificates) if is_tls and terms.certificates is not None else None

    def tally(self) -> Counter[str]:
        """How often each kind of fault has happened; "faults" is the sum."""
        tally: Counter[str] = Counter()
        for proxy in self.proxies:
            tally.update(proxy.tally())
        return tally

    def sleep(self, seconds: float) -> None:
        """Until then, or until it is over."""
        self._is_over.wait(seconds)

    def chance(self, name: str) -> random.Random:
        """The random numbers of somebody: by the seed and the name."""
        return random.Random(f"{self.seed}:{name}")

    def add(self, run: Callable[[World, str], None], name: str) -> None:
        """Have somebody take part, in a thread."""
        self._threads.append(self._start(lambda name: run(self, name), name))

    def _start(self, run: Callable[[str], None], name: str) -> threading.Thread:
        def guarded() -> None:
            try:
                run(name)
            except BaseException:
                self.failures.append(f"{run} {name}:\n{traceback.format_exc()}")
                self._is_over.set()

        thread = threading.Thread(target=guarded, name=name, daemon=True)
        thread.start()
        return thread

    def wait_until(self, is_enough: Callable[[], bool], at_most_s: float) -> None:
        """Go on until there is enough of it, or something has gone wrong."""
        deadline = time.monotonic() + at_most_s
        while not self.is_over and not is_enough():
            assert time.monotonic() < deadline, f"not enough within {at_most_s} s: {self.tally()}"
            daemon = self.daemon
            if daemon.process.poll() is not None and not self._is_restarting:
                assert daemon is not self.daemon, f"the daemon has ended: {daemon.log()}"
            self.sleep(0.1)

    def stop(self) -> None:
        """Let everybody come to an end."""
        self._is_over.set()
        deadline = time.monotonic() + max(self.patience.stated_s.values(), default=0.0) + SLACK_S
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                self.failures.append(f"{thread.name} hangs:\n{_stack_of(thread)}")
        self._threads.clear()

    def settle(self, port_name: str, account: Account) -> None:
        """Compare an account that is closed with the log, once the witness has heard as much, if there is one."""
        account.check_silences(self.ledgers[port_name].silent_ns)
        if port_name in self.witnesses:
            self._accounts[port_name].append(account)

    # Observers, who come to the daemon directly

    def _watch_queue(self, name: str) -> None:
        client: RawClient | None = None
        while not self._is_observed.wait(_LOOK_EVERY_S):
            try:
                if client is None:
                    client = RawClient(self.address)
                    client.hello(port=name, client="observer")
                self.ledgers[name].observed(client.call("status"))
            except (OSError, EOFError):
                assert self.terms.is_restarted, "the daemon ended a conversation"
                if client is not None:
                    client.close()
                    client = None
        if client is not None:
            client.close()

    def _listen(self, name: str) -> None:
        client: RawClient = self.daemon.connect(port=name, client="witness")
        client.connect_interrupt()
        account, witness = RawAccount(), self.witnesses[name]
        while True:
            is_last = self._is_observed.is_set()
            heard = client.heard()
            account.add(heard)
            for seq, timestamp_ns, count, *_ in interrupts(heard):
                witness.heard(seq, count, timestamp_ns)
            accounts = self._accounts[name]
            while accounts and (is_last or accounts[0].next_seq <= (witness.next_seq or 0)):
                accounts.popleft().check_against(witness)
            if is_last:
                break
            time.sleep(_LOOK_EVERY_S)
        assert account.lost == 0, "the witness has lost interrupts"
        client.close()

    # The end

    def check(self) -> None:
        """Everybody has come to an end: the invariants hold, and the daemon has forgotten all of them."""
        assert not self.failures, "\n".join(self.failures)
        assert not self.patience.late, "\n".join(self.patience.late)
        self._is_observed.set()
        for thread in self._observers:
            thread.join(SLACK_S)
            assert not thread.is_alive(), f"{thread.name} hangs"
        assert not self.failures, "\n".join(self.failures)
        for name, ledger in self.ledgers.items():
            ledger.check()
            eventually(lambda name=name: is_clean(self.daemon.status(port=name)), f"{name}: somebody has left a trace")  # type: ignore[misc]
        eventually(lambda: self.daemon.descriptors() == self.idle.descriptors, "descriptors are left")

    def report(self) -> str:
        """What has been done, as lines."""
        tally = self.tally()
        lines = [f"seed {self.seed}"]
        lines += [f"faults: {tally.pop('faults', 0)} in {tally.pop('connections', 0)} connections: {dict(tally)}"]
        lines += [f"clients: {dict(self.done)}"]
        lines += [f"{name}: {each.grants} grants, {each.waits} waits seen" for name, each in self.ledgers.items()]
        for what, count in sorted(self.patience.calls.items()):
            stated_s, longest_s = self.patience.stated_s[what], self.patience.longest_s[what]
            lines.append(f"{what}: {count} calls, the longest {longest_s:.2f} s of {stated_s:.1f} s stated")
        return "\n".join(lines)
