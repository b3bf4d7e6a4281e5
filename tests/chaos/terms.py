"""On which terms the daemon under chaos lets its ports: what is configured, and what its clients must be ready for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.certificates import section

# Shorter than by default, so that a fault that outlasts them is met within seconds.
DEAD_PEER_S = 3
# Of a silent port: shorter than the pause of a client before it connects again.
LINGER_S = 0.05
SHORT_LOG_FRAMES = 64
SAFE_DATA = 0
HOLD_WARNING_S = 0.05
# Of the audit trail: small enough to go over to a new file often, and together more than a run writes.
AUDIT_BYTES, AUDIT_KEEP = 2_000_000, 99
# Full after less than a minute, so that it takes no more memory after that.
LOG_FRAMES = 4096


@dataclass(frozen=True)
class Terms:
    """The settings of every port.

    Attributes:
        silent_ports: ports with no listener but those who come through the chaos, so that they are not heard at times.
        short_logs: ports whose log is short, so that who comes back late has lost something.
        grace_s: for so long a session outlives its connection; most owners and listeners then come back to theirs.
        max_hold_s, idle_hold_s: leases.
        long_hold_s: one owner in ten holds the port for so long besides, so that a lease has something to end.
        is_administered: there is an administrator, who takes ports away, pauses them and ends sessions.
        unix_socket: a path to listen on besides: for administration.
        tcp_port: where to listen; any that is free by default, but the same for daemons that follow each other.
        certificates: those of `tests.certificates`: then one client in four comes over TLS.
        folder: where the daemon keeps what it is to know after a restart, and its audit trail.
    """

    ports: int = 4
    pulse_hz: float = 100
    silent_ports: int = 2
    short_logs: int = 2
    grace_s: float = 0
    max_hold_s: float = 0
    idle_hold_s: float = 0
    long_hold_s: float = 0
    is_administered: bool = False
    unix_socket: str | None = None
    tcp_port: int = 0
    certificates: Path | None = None
    folder: str | None = None

    @property
    def may_be_revoked(self) -> bool:
        """An owner may lose the port although its connection stands."""
        return bool(self.max_hold_s or self.idle_hold_s or self.is_administered)

    @property
    def is_restarted(self) -> bool:
        """The daemon is stopped and started anew at times."""
        return self.tcp_port != 0

    def may_be_read(self, written: int) -> set[int]:
        """What an owner that has written this may read while its grant is in force."""
        return {written, SAFE_DATA} if self.is_restarted else {written}

    def port_names(self) -> list[str]:
        """LPT1, LPT2 and so on."""
        return [f"LPT{number}" for number in range(1, self.ports + 1)]

    def witnessed(self) -> list[str]:
        """Those with a listener that nobody disturbs."""
        return self.port_names()[: self.ports - self.silent_ports]

    def listeners(self) -> int:
        """How many there are: TCP, and perhaps TLS and a Unix socket, in this order."""
        return 1 + (self.certificates is not None) + (self.unix_socket is not None)

    def text(self, *, is_other: bool = False) -> str:
        """The configuration file; another one, with a listener more, to have something to change at a reload."""
        urls = [f"lpt://127.0.0.1:{self.tcp_port}"]
        urls += ["lpts://127.0.0.1:0"] if self.certificates else []
        urls += [f"lpt+unix://{self.unix_socket}"] if self.unix_socket else []
        urls += [f"lpt+unix://{self.unix_socket}-2"] if is_other else []
        rate_hz = 50_001 if is_other else 50_000
        lines = ["[server]", f"listen = {urls}", 'log_level = "warning"']
        lines += [f"state_directory = '{self.folder}'"] if self.folder else []
        for number, name in enumerate(self.port_names()):
            frames = SHORT_LOG_FRAMES if number < self.short_logs else LOG_FRAMES
            lines += ["[[port]]", f'name = "{name}"', "enable_connect_interrupt = true", f"pulse_hz = {self.pulse_hz}"]
            lines += [f"max_interrupt_rate_hz = {rate_hz}", f"interrupt_log_frames = {frames}"]
            lines += [] if name in self.witnessed() else [f"interrupt_linger_s = {LINGER_S}"]
            lines += [f"safe_data = {SAFE_DATA}", f"grace_s = {self.grace_s}", f"hold_warning_s = {HOLD_WARNING_S}"]
            lines += [f"max_hold_s = {self.max_hold_s}", f"idle_hold_s = {self.idle_hold_s}"]
        if self.certificates is not None:
            lines += ["[tls]", *(f"{name} = '{value}'" for name, value in section(self.certificates).items())]
        lines += ["[audit]", f"max_bytes = {AUDIT_BYTES}", f"keep = {AUDIT_KEEP}"]
        return "\n".join([*lines, "[limits]", f"dead_peer_s = {DEAD_PEER_S}", ""]).replace("'", '"')
