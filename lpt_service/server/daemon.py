"""The daemon: its ports, listeners and sessions, from start to stop."""

from __future__ import annotations

import itertools
import logging
import secrets
import signal
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, Final

import trio

from lpt_service import log
from lpt_service.config import Config, ConfigError, LimitsConfig, PortConfig
from lpt_service.core.function_driver import FunctionDriver
from lpt_service.core.port_report import status_report
from lpt_service.core.requests import SessionState
from lpt_service.port.absent import AbsentPort
from lpt_service.port.simulated import SimulatedPort
from lpt_service.protocol.messages import PROTOCOL_VERSION
from lpt_service.protocol.url import Url
from lpt_service.server import session_file
from lpt_service.server.admission import Admission
from lpt_service.server.audit import Audit
from lpt_service.server.clock import Clock, SystemClock
from lpt_service.server.grant_ledger import GrantLedger
from lpt_service.server.hello import SERVER_NAME
from lpt_service.server.identity import Origin
from lpt_service.server.listener_set import Change, ListenError, ListenerSet
from lpt_service.server.listeners import Listener
from lpt_service.server.peer_watch import watch_peers
from lpt_service.server.port_opener import opener_of
from lpt_service.server.port_worker import PortWorker
from lpt_service.server.pulse_source import raise_pulses
from lpt_service.server.reception import Reception
from lpt_service.server.reload import merged, needing_restart
from lpt_service.server.roles import Roles
from lpt_service.server.session import Session
from lpt_service.server.strangers import StrangerLog
from lpt_service.server.stream import Stream
from lpt_service.server.supervision import Supervision
from lpt_service.server.systemd import Handover
from lpt_service.server.threads import in_thread, in_thread_for
from lpt_service.server.tickets import Tickets
from lpt_service.server.tls_gate import TlsError, TlsGate, context_of

_STOPPING: Final = "the daemon is stopping"
_KEEP_GRANTS_S: Final = 60.0
SAVE_TIMEOUT_S: Final = 2.0  # for the note of sessions that outlive this daemon
_log = logging.getLogger(__name__)


class Daemon:
    """Serves the ports of a configuration.

    `announce` is called with a URL for each listener and port once clients can connect. `reread` gives the
    configuration anew when the daemon is told to reload. `handover` is what systemd has given; it is closed at the end.
    """

    def __init__(
        self,
        config: Config,
        *,
        announce: Callable[[Url], None] = lambda url: None,
        reread: Callable[[], Config] | None = None,
        clock: Clock | None = None,
        handover: Handover | None = None,
    ) -> None:
        self.clock: Clock = SystemClock() if clock is None else clock
        self.workers: dict[str, PortWorker] = {}
        self.sessions: set[Session] = set()
        self.tickets = Tickets()
        self.admission = Admission(config, self.workers)
        self._config = config
        self._announce = announce
        self._reread = reread
        self._numbers = itertools.count(1)
        self._stop_wanted = trio.Event()
        self._reload_wanted = trio.Event()
        self._nursery: trio.Nursery | None = None
        self._everybody_left = trio.Event()
        self._started_ns = self.clock.monotonic_ns()
        self._handover = handover = Handover() if handover is None else handover
        configured = config.server.state_directory
        self._state_directory = handover.state_directory if configured is None else Path(configured)
        self.audit = Audit(config.audit, self.clock, self._state_directory)
        self._listeners = ListenerSet(handover.sockets)
        self.strangers = StrangerLog(self.clock)
        self._gate = TlsGate(self.strangers)
        self._reception = Reception(self.admission, self._gate, self.serve, self.audit, self.strangers)
        self._supervision = Supervision(self.workers, self.clock, handover.notifier, handover.watchdog_s)

    @property
    def limits(self) -> LimitsConfig:
        """The limits in force; a reload may change them."""
        return self._config.limits

    # Start and stop

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until `stop` is called.

        Error handling: TlsError if a certificate cannot be used, ListenError if a listener cannot be opened.

        Resource handling: ports and listeners are closed when this returns or raises.
        """
        try:
            self._gate.context = context_of(self._config)
            self._reception.dead_peer_s = self.limits.dead_peer_s
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.audit.run)
                for port in self._config.port:
                    await self._start_port(port, nursery)
                with trio.CancelScope() as starting:  # a name may take its time to be looked up
                    nursery.start_soon(self._cancel_when_stopped, starting)
                    change = await self._listeners.prepare(self._config.server.listen, self._config.lets_anybody_use)
                    self._listeners.commit(change)
                if starting.cancelled_caught:
                    nursery.cancel_scope.cancel()
                    return
                self.audit.record("start", server=SERVER_NAME)
                self._restore_sessions()
                async with trio.open_nursery() as self._nursery:
                    self._reception.nursery = self._nursery
                    self._let_in(self._listeners)
                    nursery.start_soon(self._supervision.run)
                    nursery.start_soon(watch_peers, self.sessions, lambda: self.limits)
                    nursery.start_soon(self._gate.watch_expiry, lambda: self.clock.realtime_ns() / 1e9)
                    self._supervision.ready()
                    self._nursery.start_soon(self._keep_reloading)
                    task_status.started()
                    await self._stop_wanted.wait()
                    await self._stop()
                    self._nursery.cancel_scope.cancel()
                nursery.cancel_scope.cancel()
        finally:
            if self._nursery is not None:  # it has started
                self.audit.record("stop")
            await self.audit.close()
            self._listeners.close()
            for worker in self.workers.values():
                worker.driver.port.close()
            self._handover.notifier.close()

    async def _cancel_when_stopped(self, scope: trio.CancelScope) -> None:
        await self._stop_wanted.wait()
        scope.cancel()

    def _let_in(self, listeners: Iterable[Listener]) -> None:
        """Accept connections from now on, and say where."""
        assert self._nursery is not None
        for listener in listeners:
            self._nursery.start_soon(listener.accept_forever, partial(self._reception.receive, listener))
            for name in self.workers:
                self._announce(listener.url.with_port_name(name))

    def stop(self) -> None:
        """Begin to stop: see `_stop`."""
        self._stop_wanted.set()

    async def handle_signals(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """SIGTERM and SIGINT stop the daemon, SIGHUP reloads its configuration."""
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            task_status.started()
            async for number in signals:
                self.heed(number)

    def heed(self, number: int) -> None:
        """Do what a signal says, once there is something to reload or to stop."""
        if number == signal.SIGHUP:
            self._reload_wanted.set()
        else:
            _log.info("%s: stopping", signal.Signals(number).name)
            self.stop()

    async def _stop(self) -> None:
        """Stop accepting, quiet the devices, mark the logs, deliver what can be delivered, tell everybody; bounded."""
        self._supervision.stopping(self._config.server.stop_timeout_s)
        self._reception.is_closed = True
        self._listeners.close()
        saved = self._describe_sessions()
        for worker in self.workers.values():
            worker.stop()
        for session in tuple(self.sessions):
            session.end(_STOPPING, with_log=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._save_sessions, saved)
            if self.sessions:
                with trio.move_on_after(self._config.server.stop_timeout_s):
                    await self._everybody_left.wait()

    def _describe_sessions(self) -> dict[str, session_file.SavedPort]:
        """Those whose clients may come back to the next daemon, by their ports, and what they hold."""
        for worker in self.workers.values():
            worker.parking.spare()
        if self._state_directory is None:
            for worker in self.workers.values():
                worker.parking.spared.clear()
        if not any(worker.parking.spared for worker in self.workers.values()):
            return {}
        return {name: session_file.describe(worker) for name, worker in self.workers.items()}

    async def _save_sessions(self, saved: dict[str, session_file.SavedPort]) -> None:
        if saved and self._state_directory is not None:
            write = partial(session_file.write, self._state_directory, saved)
            with trio.CancelScope(shield=True):
                is_written = await in_thread_for(SAVE_TIMEOUT_S, write)
            if not is_written:
                _log.error("the sessions that were to outlive this daemon were not saved within %g s", SAVE_TIMEOUT_S)

    def _restore_sessions(self) -> None:
        saved = {} if self._state_directory is None else session_file.take(self._state_directory)
        numbers = [each.session for port in saved.values() for each in port.sessions]
        self._numbers = itertools.count(max(numbers, default=0) + 1)
        for name, port in saved.items():
            worker = self.workers.get(name)
            if worker is not None and worker.parking.grace_s > 0:
                session_file.restore(worker, port)

    async def _start_port(self, port_config: PortConfig, nursery: trio.Nursery) -> None:
        opener = opener_of(port_config, self.clock.monotonic_ns)
        ledger = GrantLedger(self._state_directory, port_config.name)
        driver = FunctionDriver(
            AbsentPort(opener.kind, "it has not been looked for yet"),
            self._config.port_settings(port_config),
            stream=secrets.randbits(52) | 1,
            last_grant=ledger.first(self.clock.realtime_ns()),
        )
        worker = self.workers[port_config.name] = PortWorker(driver, opener, self.clock, self.tickets, self.audit)
        worker.parking.grace_s = port_config.grace_s
        worker.on_released = self._end_drain
        with log.about_port(port_config.name):
            await nursery.start(worker.run)
            nursery.start_soon(self._keep_grants, ledger, driver)
        if port_config.pulse_hz and isinstance(driver.port, SimulatedPort):
            nursery.start_soon(raise_pulses, driver.port, port_config.pulse_hz)

    async def _keep_grants(self, ledger: GrantLedger, driver: FunctionDriver) -> None:
        while True:
            await trio.sleep(_KEEP_GRANTS_S)
            await in_thread(partial(ledger.keep, driver.ownership.grant))

    # Reload

    async def _keep_reloading(self) -> None:
        """One reload after the other; one that is asked for during another follows it."""
        while True:
            await self._reload_wanted.wait()
            self._reload_wanted = trio.Event()
            await self.reload()

    async def reload(self) -> None:
        """Read the configuration anew. One with errors is refused whole, and the old one stays."""
        if self._reread is None:
            _log.warning("reload: there is no configuration file to read")
            return
        self._supervision.reloading()
        try:
            config = self._reread()
            context = context_of(config)
            roles = await Roles.look_up(merged(self._config, config))
            change = await self._listeners.prepare(config.server.listen, config.lets_anybody_use)
        except (ConfigError, TlsError, ListenError) as exc:
            for problem in exc.problems:
                _log.error("reload refused: %s", problem)
            self.audit.record("reload_refused", reason="; ".join(exc.problems))
            self._supervision.ready("the last reload was refused, see the log")
            return
        if self._stop_wanted.is_set():
            change.give_up()
            return
        self._gate.context = context or self._gate.context  # the latter for those of a listener that leaves
        self._apply(config, change, roles)
        self.audit.reconfigure(self._config.audit)
        self.audit.record("reload")
        _log.info("reloaded")
        self._supervision.ready()

    def _apply(self, config: Config, change: Change, roles: Roles) -> None:
        """Take what can be changed while running; name what cannot."""
        old, self._config = self._config, merged(self._config, config)
        for line in needing_restart(old, config):
            _log.warning("reload: %s", line)
        if config.server.listen != old.server.listen:
            for listener in change.unnamed:
                _log.warning("reload: %s stays, systemd holds it: change lptd.socket", listener.url)
        for port in self._config.port:
            worker = self.workers[port.name]
            worker.driver.reconfigure(self._config.port_settings(port))
            worker.parking.grace_s = port.grace_s
            worker.carry_out()
        self._reception.dead_peer_s = config.limits.dead_peer_s
        if config.limits.dead_peer_s != old.limits.dead_peer_s:
            for session in self.sessions:
                session.set_dead_peer_s(config.limits.dead_peer_s)
        if config.server.log_level != old.server.log_level:
            log.set_level(config.server.log_level)
        self._exchange_listeners(change)
        self.admission.reconfigure(self._config, roles)

    def _exchange_listeners(self, change: Change) -> None:
        self._listeners.commit(change)
        self._let_in(change.opened)
        for listener in change.leaving:
            _log.info("reload: no longer listening on %s", listener.url)
            listener.retire(partial(self._reception.receive, listener))

    # Connections

    def spawn(self, task: Callable[[], Awaitable[None]]) -> None:
        """Run a task beside the sessions, until the daemon stops."""
        assert self._nursery is not None
        self._nursery.start_soon(task)

    def serve(self, stream: Stream, origin: Origin) -> Session:
        """Begin a session on a connection."""
        session = Session(next(self._numbers), stream, origin, self)
        self.sessions.add(session)
        self.admission.count(origin.counted_as)
        self.admission.await_hello(session)
        self.spawn(lambda: self._run_session(session))
        return session

    async def _run_session(self, session: Session) -> None:
        try:
            await session.run()
        finally:
            self.sessions.discard(session)
            self.admission.hear_hello(session)
            self.admission.discount(session.origin.counted_as)
            if not self.sessions and self._stop_wanted.is_set():
                self._everybody_left.set()

    # What every port has in common

    def drain(self, state: SessionState, *, is_on: bool) -> dict[str, Any]:
        """Grant nobody new on any port while a session wants it so; the answer to drain."""
        for worker in self.workers.values():
            worker.driver.drain(state, self.clock.monotonic_ns(), is_on=is_on)
            worker.carry_out()
        queues = [(worker.name, worker.driver.ownership) for worker in self.workers.values()]
        return {
            "idle": all(queue.owner is None for _, queue in queues),
            "ports": [
                {"port": name, "owner": queue.owner and queue.owner.client, "waiting": queue.waiting}
                for name, queue in queues
            ],
        }

    def _end_drain(self, state: SessionState) -> None:
        """A session has ended, with all that it held of its port: it grants again on the others, too."""
        if any(state in each.driver.ownership.drainers for each in self.workers.values()):
            self.drain(state, is_on=False)

    def status(self, worker: PortWorker) -> dict[str, Any]:
        """The answer to status."""
        now_ns = self.clock.monotonic_ns()
        worker.driver.collect_interrupts(now_ns)  # strays that nobody has counted yet
        report = status_report(worker.driver, now_ns)
        report["counters"]["lost"] = worker.lost
        return {
            "protocol": PROTOCOL_VERSION,
            "server": SERVER_NAME,
            "port": worker.name,
            "uptime_ns": now_ns - self._started_ns,
            "sessions": len(worker.sessions) + len(worker.parking),
            "away": len(worker.parking),
            "left_silently": self.strangers.left_silently,
            **report,
        }
