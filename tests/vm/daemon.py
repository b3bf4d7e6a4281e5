"""lptd in the guest, for clients on the host, and the far end of its port's cable."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

from lpt_client import blocking
from tests.e2e import daemons
from tests.e2e.client import RawClient
from tests.vm.guest import DAEMON_PORT, TIMEOUT_S, Guest
from tests.vm.peripheral import DEVICE, VirtualPeripheral

SAFE_DATA: Final = 0x81
SAFE_CONTROL: Final = 0x0C

# Two ports. The log of the card's keeps a flood, and the storm guard lets one pass.
PC_PORT: Final = f"""
[[port]]
name = "PC"
device = "/dev/parport0"
enable_connect_interrupt = true
safe_control = {SAFE_CONTROL}
"""
CARD: Final = f"""
[[port]]
name = "CARD"
device = "/dev/parport1"
enable_connect_interrupt = true
safe_data = {SAFE_DATA}
safe_control = {SAFE_CONTROL}
max_interrupt_rate_hz = 10_000_000
"""
# Who does not read for a while is not dead: the machine may be slow.
_SERVER: Final = f"""
[server]
listen = [{{url = "lpt://0.0.0.0:{DAEMON_PORT}", insecure = true}}]
[limits]
dead_peer_s = 3600
"""

_ONE_MORE_FLOOD: Final = 1_000_000_000  # it is ended long before

_numbers = itertools.count(1)


class GuestDaemon:
    """`lptd serve` as a transient unit of the guest's systemd, in the group lp and no more.

    Every method may raise GuestError, also where the daemon does not do in time what is asked for.

    Attributes:
        unit: the unit's name, the same after `kill` and another `start`.
    """

    def __init__(self, guest: Guest, ports: str = PC_PORT + CARD) -> None:
        self._guest = guest
        self.unit = f"lptd-test-{next(_numbers)}"
        self._configure(ports)

    def start(self) -> None:
        """Start it, and wait until clients can connect."""
        self._guest.check(
            f"systemd-run --quiet --collect --unit={self.unit} --property=User=nobody --property=Group=lp"
            f" /srv/venv/bin/lptd serve --config /srv/share/{self.unit}.toml\n"
            f"until ss -ltn | grep -q ':{DAEMON_PORT} '; do"
            f" systemctl is-active --quiet {self.unit} || exit 1; sleep 0.1; done",
            TIMEOUT_S,
        )

    def reload(self, ports: str = PC_PORT + CARD) -> None:
        """Have it take these ports' settings."""
        before = self.log().count("reloaded")
        self._configure(ports)
        self._guest.check(
            f"systemctl kill --signal=HUP {self.unit}\n"
            f"until [ $({self._show_log} | grep -c reloaded) -gt {before} ]; do sleep 0.1; done",
            TIMEOUT_S,
        )

    def stop(self) -> None:
        """Stop it in order (SIGTERM)."""
        self._guest.check(f"systemctl stop {self.unit}", TIMEOUT_S)

    def kill(self) -> None:
        """Kill it (SIGKILL), and wait until it is dead."""
        self._guest.check(
            f"systemctl kill --signal=KILL {self.unit}\n"
            f"while systemctl is-active --quiet {self.unit}; do sleep 0.1; done",
            TIMEOUT_S,
        )

    def signal(self, name: str) -> None:
        """Send it a signal, for example STOP."""
        self._guest.check(f"systemctl kill --signal={name} {self.unit}")

    def log(self) -> str:
        """What it and systemd have written about it."""
        return self._guest.check(f"journalctl --sync && {self._show_log}")

    def descriptors(self) -> int:
        """How many files it has open."""
        return int(self._guest.check(f"ls /proc/$(systemctl show --property=MainPID --value {self.unit})/fd | wc -l"))

    def connect(self, port: str = "CARD", **keys: Any) -> RawClient:
        """A client on the host that has said hello."""
        return greet(self._guest, port=port, **keys)

    def url(self, port: str = "CARD") -> str:
        """Of a port, from the host."""
        host, tcp_port = self._guest.address()
        return f"lpt://{host}:{tcp_port}/{port}"

    def status(self, port: str = "CARD") -> dict[str, Any]:
        """What a client that comes and goes is told by `status`."""
        client = self.connect(port)
        report: dict[str, Any] = client.call("status")
        client.close()
        return report

    @property
    def _show_log(self) -> str:
        return f"journalctl --quiet --output=cat --unit={self.unit}"

    def _configure(self, ports: str) -> None:
        (self._guest.share / f"{self.unit}.toml").write_text(_SERVER + ports, encoding="utf-8")


def greet(guest: Guest, **keys: Any) -> RawClient:
    """A client on the host that has said hello to the daemon in the guest."""
    client = RawClient(guest.address())
    client.socket.settimeout(TIMEOUT_S)
    try:
        return client.hello(**keys)
    except BaseException:
        client.close()
        raise


# For what the guest brings about.
eventually = partial(daemons.eventually, timeout_s=TIMEOUT_S)
# The SDK's clients on the host.
open_patiently = partial(blocking.open_port, connect_timeout_s=TIMEOUT_S, reply_timeout_s=TIMEOUT_S)


@contextmanager
def serving(guest: Guest, ports: str = PC_PORT + CARD) -> Iterator[GuestDaemon]:
    """A daemon that serves, and at the end stops in order."""
    daemon = GuestDaemon(guest, ports)
    try:
        daemon.start()
        yield daemon
        daemon.stop()
    finally:
        guest.run(f"systemctl kill --signal=KILL {daemon.unit}")
    log = daemon.log()
    assert "Traceback" not in log, log
    assert "Stopped" in log, log


class DistantPeripheral(VirtualPeripheral):
    """The far end of the card's cable, played from the host. Where the kernel refuses, GuestError is raised."""

    def __init__(self, guest: Guest) -> None:
        self._guest = guest

    @contextmanager
    def flooding(self) -> Iterator[None]:
        """Raise interrupts as fast as the kernel can while the block runs, or until the card is pulled."""
        self._guest.check(f"systemd-run --quiet --collect --unit=flood bash -c 'echo ack {_ONE_MORE_FLOOD} >{DEVICE}'")
        try:
            yield
        finally:
            self._guest.run("systemctl stop flood", TIMEOUT_S)

    def writes_since(self, write_count: int) -> list[tuple[str, int]]:
        """Register and value of each write after the first `write_count`, of which the card must have kept all."""
        report = self.report()
        new = report.write_count - write_count
        assert new <= len(report.writes)
        return [(write.register, write.value) for write in report.writes[len(report.writes) - new :]]

    def _read(self) -> str:
        return self._guest.check(f"cat {DEVICE}")

    def _command(self, command: str) -> None:
        self._guest.check(f"echo {command} >{DEVICE}", TIMEOUT_S)
