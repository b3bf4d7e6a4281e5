"""The settings of one port, as plain values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PortSettings:
    """What a port is told to do. Every default is the contract's.

    Attributes:
        name: by which hello names the port.
        enable_connect_interrupt: EnableConnectInterruptIoctl: whether clients may connect interrupts.
        safe_data, safe_control: what the lines are driven to when an owner is gone; None leaves them alone.
        max_interrupt_rate_hz: more than this many interrupts in a second mask the port.
        interrupt_log_frames: how many entries the event log keeps (42 bytes each).
        interrupt_linger_ns: how long the source stays connected for a session that vanished.
        max_waiters: how many allocate requests may wait.
        max_registrations: how many interrupt structures one session may have connected.
        max_pending_requests: how many requests of one session may be unanswered.
        max_hold_ns: how long an owner may keep the port while others wait; 0: as long as it likes.
        idle_hold_ns: how long an owner may do nothing; 0: as long as it likes.
        hold_warning_ns: how long before it loses the port an owner is told.
    """

    name: str
    enable_connect_interrupt: bool = False
    safe_data: int | None = None
    safe_control: int | None = None
    max_interrupt_rate_hz: int = 50_000
    interrupt_log_frames: int = 65_536
    interrupt_linger_ns: int = 30_000_000_000
    max_waiters: int = 4096
    max_registrations: int = 64
    max_pending_requests: int = 256
    max_hold_ns: int = 0
    idle_hold_ns: int = 0
    hold_warning_ns: int = 5_000_000_000

    @property
    def has_lease(self) -> bool:
        """Whether an owner may lose the port by keeping it."""
        return bool(self.max_hold_ns or self.idle_hold_ns)
