"""The daemon: its ports, listeners and sessions, from start to stop."""

from __future__ import annotations

import hashlib
import hmac
import itertools
import logging
import secrets
import signal
import socket
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, Final

import trio

from lpt_service import __version__, log
from lpt_service.config import Config, ConfigError, LimitsConfig, PortConfig
from lpt_service.core.function_driver import FunctionDriver
from lpt_service.core.port_report import status_report
from lpt_service.core.requests import SessionState
from lpt_service.port.absent import AbsentPort
from lpt_service.port.simulated import SimulatedPort
from lpt_service.protocol import messages
from lpt_service.protocol.codec import DAEMON_LIMITS
from lpt_service.protocol.errors import RequestError
from lpt_service.protocol.ioctl import PULSE_WIDTH_MAX_US
from lpt_service.protocol.messages import PROTOCOL_VERSION
from lpt_service.protocol.status import Status
from lpt_service.protocol.url import Url
from lpt_service.server.clock import Clock, SystemClock
from lpt_service.server.grant_ledger import GrantLedger
from lpt_service.server.hello import Hello
from lpt_service.server.listener_set import Change, ListenError, ListenerSet
from lpt_service.server.listeners import Listener
from lpt_service.server.port_opener import opener_of
from lpt_service.server.port_worker import PortWorker
from lpt_service.server.pulse_source import raise_pulses
from lpt_service.server.reload import merged, needing_restart
from lpt_service.server.session import Session
from lpt_service.server.stream import SocketStream, Stream, describe_peer, is_administrator, set_options
from lpt_service.server.supervision import Supervision
from lpt_service.server.systemd import Handover
from lpt_service.server.tls_gate import TlsError, TlsGate, context_of

SERVER_NAME: Final = f"lpt-service {__version__}"
_STOPPING: Final = "the daemon is stopping"
_KEEP_GRANTS_S: Final = 60.0
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
        self._config = config
        self._announce = announce
        self._reread = reread
        self._numbers = itertools.count(1)
        self._stop_wanted = trio.Event()
        self._nursery: trio.Nursery | None = None
        self._everybody_left = trio.Event()
        self._started_ns = self.clock.monotonic_ns()
        self._handover = handover = Handover() if handover is None else handover
        self._listeners = ListenerSet(handover.sockets)
        self._gate = TlsGate()
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
            async with trio.open_nursery() as nursery:
                for port in self._config.port:
                    await self._start_port(port, nursery)
                change = await self._listeners.prepare(self._config.server.listen)
                self._listeners.commit(change)
                async with trio.open_nursery() as self._nursery:
                    self._let_in(self._listeners)
                    nursery.start_soon(self._supervision.run)
                    self._supervision.ready()
                    task_status.started()
                    await self._stop_wanted.wait()
                    await self._stop()
                    self._nursery.cancel_scope.cancel()
                nursery.cancel_scope.cancel()
        finally:
            self._listeners.close()
            for worker in self.workers.values():
                worker.driver.port.close()
            self._handover.notifier.close()

    def _let_in(self, listeners: Iterable[Listener]) -> None:
        """Accept connections from now on, and say where."""
        assert self._nursery is not None
        for listener in listeners:
            self._nursery.start_soon(listener.accept_forever, partial(self._welcome_connection, listener))
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
                if number == signal.SIGHUP:
                    await self.reload()
                else:
                    _log.info("%s: stopping", signal.Signals(number).name)
                    self.stop()

    async def _stop(self) -> None:
        """Stop accepting, quiet the devices, mark the logs, deliver what can be delivered, tell everybody; bounded."""
        self._supervision.stopping(self._config.server.stop_timeout_s)
        self._listeners.close()
        for worker in self.workers.values():
            worker.stop()
        if not self.sessions:
            return
        for session in tuple(self.sessions):
            session.end(_STOPPING, with_log=True)
        with trio.move_on_after(self._config.server.stop_timeout_s):
            await self._everybody_left.wait()

    async def _start_port(self, port_config: PortConfig, nursery: trio.Nursery) -> None:
        opener = opener_of(port_config, self.clock.monotonic_ns)
        configured = self._config.server.state_directory
        directory = self._handover.state_directory if configured is None else Path(configured)
        ledger = GrantLedger(directory, port_config.name)
        driver = FunctionDriver(
            AbsentPort(opener.kind, "it has not been looked for yet"),
            self._config.port_settings(port_config),
            stream=secrets.randbits(52) | 1,
            last_grant=ledger.first(self.clock.realtime_ns()),
        )
        worker = self.workers[port_config.name] = PortWorker(driver, opener, self.clock)
        with log.about_port(port_config.name):
            await nursery.start(worker.run)
            nursery.start_soon(self._keep_grants, ledger, driver)
        if port_config.pulse_hz and isinstance(driver.port, SimulatedPort):
            nursery.start_soon(raise_pulses, driver.port, port_config.pulse_hz)

    async def _keep_grants(self, ledger: GrantLedger, driver: FunctionDriver) -> None:
        while True:
            await trio.sleep(_KEEP_GRANTS_S)
            ledger.keep(driver.ownership.grant)

    # Reload

    async def reload(self) -> None:
        """Read the configuration anew. One with errors is refused whole, and the old one stays."""
        if self._reread is None:
            _log.warning("reload: there is no configuration file to read")
            return
        self._supervision.reloading()
        try:
            config = self._reread()
            context = context_of(config)
            change = await self._listeners.prepare(config.server.listen)
        except (ConfigError, TlsError, ListenError) as exc:
            for problem in exc.problems:
                _log.error("reload refused: %s", problem)
            self._supervision.ready("the last reload was refused, see the log")
            return
        if self._stop_wanted.is_set():
            change.give_up()
            return
        self._gate.context = context or self._gate.context  # the latter for those of a listener that leaves
        self._apply(config, change)
        _log.info("reloaded")
        self._supervision.ready()

    def _apply(self, config: Config, change: Change) -> None:
        """Take what can be changed while running; name what cannot."""
        old, self._config = self._config, merged(self._config, config)
        for line in needing_restart(old, config):
            _log.warning("reload: %s", line)
        if config.server.listen != old.server.listen:
            for listener in change.unnamed:
                _log.warning("reload: %s stays, systemd holds it: change lptd.socket", listener.url)
        for port in self._config.port:
            self.workers[port.name].driver.reconfigure(self._config.port_settings(port))
        if config.limits.dead_peer_s != old.limits.dead_peer_s:
            for session in self.sessions:
                session.set_dead_peer_s(config.limits.dead_peer_s)
        if config.server.log_level != old.server.log_level:
            log.set_level(config.server.log_level)
        self._exchange_listeners(change)

    def _exchange_listeners(self, change: Change) -> None:
        self._listeners.commit(change)
        self._let_in(change.opened)
        for listener in change.leaving:
            _log.info("reload: no longer listening on %s", listener.url)
            listener.retire(partial(self._welcome_connection, listener))

    # Connections

    def spawn(self, task: Callable[[], Awaitable[None]]) -> None:
        """Run a task beside the sessions, until the daemon stops."""
        assert self._nursery is not None
        self._nursery.start_soon(task)

    def _welcome_connection(self, listener: Listener, sock: socket.socket) -> None:
        try:
            set_options(sock, self.limits.dead_peer_s)
            peer, is_admin = describe_peer(sock), is_administrator(sock)
        except OSError:  # gone already
            sock.close()
            return
        if listener.is_tls:
            self.spawn(partial(self._secure, SocketStream(sock), peer))
        else:
            self.serve(SocketStream(sock), peer, is_admin=is_admin)

    async def _secure(self, raw: SocketStream, peer: str) -> None:
        stream = await self._gate.lead(raw, peer)
        if stream is None:
            return
        if self._stop_wanted.is_set():
            stream.close()
            return
        self.serve(stream, peer if stream.identity is None else f"{stream.identity} at {peer}")

    def serve(self, stream: Stream, peer: str, *, is_admin: bool = False) -> Session:
        """Begin a session on a connection."""
        session = Session(next(self._numbers), stream, peer, self, is_admin=is_admin)
        self.sessions.add(session)
        self.spawn(lambda: self._run_session(session))
        return session

    async def _run_session(self, session: Session) -> None:
        try:
            await session.run()
        finally:
            self.sessions.discard(session)
            if session.is_admin and session.state is not None:
                self.drain(session.state, is_on=False)
            if not self.sessions and self._stop_wanted.is_set():
                self._everybody_left.set()

    # What every port has in common

    def admit(self, hello: Hello, *, is_admin: bool = False) -> PortWorker:
        """The port that a client may use. Raises RequestError; nothing is told before the token holds.

        An administrator may leave the token out: who can change the configuration has no need to know one.
        """
        if hello.protocol != PROTOCOL_VERSION:
            raise RequestError(Status.STATUS_NOT_SUPPORTED, f"protocol: version {hello.protocol} is not supported")
        if not (is_admin and hello.token is None) and not self._is_token_good(hello.token):
            raise RequestError(Status.STATUS_ACCESS_DENIED, "token: missing or wrong")
        if hello.port is None and len(self.workers) > 1:
            raise RequestError(Status.STATUS_NO_SUCH_DEVICE, "port: this daemon has several, name one")
        worker = next(iter(self.workers.values())) if hello.port is None else self.workers.get(hello.port)
        if worker is None:
            raise RequestError(Status.STATUS_NO_SUCH_DEVICE, f"port: there is no {hello.port!r:.40}")
        if sum(len(each.sessions) for each in self.workers.values()) >= self.limits.max_sessions:
            raise RequestError(
                Status.STATUS_INSUFFICIENT_RESOURCES, f"sessions: {self.limits.max_sessions} are open, the limit"
            )
        return worker

    def _is_token_good(self, token: str | None) -> bool:
        if not self._config.token:
            return True
        digest = hashlib.sha256((token or "").encode()).hexdigest()
        # Every one is compared, so that time tells nothing.
        return sum(hmac.compare_digest(digest, each.sha256) for each in self._config.token) > 0

    def welcome(self, session_number: int, worker: PortWorker, *, is_admin: bool) -> dict[str, Any]:
        """The answer to hello."""
        limits = DAEMON_LIMITS
        return {
            "protocol": PROTOCOL_VERSION,
            "server": SERVER_NAME,
            "port": worker.name,
            "session": session_number,
            "stream": worker.driver.registry.log.stream,
            "clock": {"monotonic_ns": self.clock.monotonic_ns(), "realtime_ns": self.clock.realtime_ns()},
            "limits": {
                "max_frame_bytes": limits.max_frame_bytes,
                "max_items": limits.max_items,
                "max_string_bytes": limits.max_string_bytes,
                "max_nesting": limits.max_nesting,
                "max_pending_requests": self.limits.max_pending_requests,
                "max_waiters": self.limits.max_waiters,
                "max_pulse_width_us": PULSE_WIDTH_MAX_US,
                "interrupt_log_frames": worker.driver.registry.log.capacity,
                "dead_peer_s": self.limits.dead_peer_s,
            },
            "features": [messages.DRAIN] if is_admin else [],
        }

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
            "sessions": len(worker.sessions),
            **report,
        }
