"""On which terms the daemon under chaos lets its ports: what is configured, and what its clients must be ready for."""

from __future__ import annotations

from dataclasses import dataclass

# Shorter than by default, so that a fault that outlasts them is met within seconds.
DEAD_PEER_S = 3
# Of a silent port: shorter than the pause of a client before it connects again.
LINGER_S = 0.05
SHORT_LOG_FRAMES = 64
# Full after less than a minute, so that it takes no more memory after that.
LOG_FRAMES = 4096


@dataclass(frozen=True)
class Terms:
    """The settings of every port.

    Attributes:
        silent_ports: ports with no listener but those who come through the chaos, so that they are not heard at times.
        short_logs: ports whose log is short, so that who comes back late has lost something.
        port_settings: more lines for each `[[port]]`: here leases (`max_hold_s`) and grace (`grace_s`) are switched on.
        may_be_revoked: an owner may lose the port although its connection stands, as leases have it.
        long_hold_s: one owner in ten holds the port for so long besides, so that a lease has something to end.
        unix_socket: a path to listen on besides: for administration.
    """

    ports: int = 4
    pulse_hz: float = 100
    silent_ports: int = 2
    short_logs: int = 2
    port_settings: str = ""
    may_be_revoked: bool = False
    long_hold_s: float = 0
    unix_socket: str | None = None

    def port_names(self) -> list[str]:
        """LPT1, LPT2 and so on."""
        return [f"LPT{number}" for number in range(1, self.ports + 1)]

    def witnessed(self) -> list[str]:
        """Those with a listener that nobody disturbs."""
        return self.port_names()[: self.ports - self.silent_ports]

    def listeners(self) -> int:
        """How many there are: TCP, and perhaps a Unix socket."""
        return 1 + (self.unix_socket is not None)

    def text(self, *, is_other: bool = False) -> str:
        """The configuration file; another one, with a listener more, to have something to change at a reload."""
        urls = ["lpt://127.0.0.1:0", *([f"lpt+unix://{self.unix_socket}"] if self.unix_socket else [])]
        urls += [f"lpt+unix://{self.unix_socket}-2"] if is_other else []
        rate_hz = 50_001 if is_other else 50_000
        lines = ["[server]", f"listen = {urls}", 'log_level = "warning"']
        for number, name in enumerate(self.port_names()):
            frames = SHORT_LOG_FRAMES if number < self.short_logs else LOG_FRAMES
            lines += ["[[port]]", f'name = "{name}"', "enable_connect_interrupt = true", f"pulse_hz = {self.pulse_hz}"]
            lines += [f"max_interrupt_rate_hz = {rate_hz}", f"interrupt_log_frames = {frames}", "safe_data = 0"]
            lines += [] if name in self.witnessed() else [f"interrupt_linger_s = {LINGER_S}"]
            lines += [self.port_settings]
        return "\n".join([*lines, "[limits]", f"dead_peer_s = {DEAD_PEER_S}", ""]).replace("'", '"')
