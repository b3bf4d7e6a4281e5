"""Other users of the same port: whoever has it first keeps it, who comes second is told so at once, nobody hangs.

Debian's own programs run in the guest beside the daemon, its clients on the host. All of it happens at /dev/parport1:
a program that waits for QEMU's port can hang the guest (drivers/parport/share.c enables interrupts under a lock).
"""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from lpt_client import blocking
from tests.vm.daemon import CARD, PC_PORT, DistantPeripheral, GuestDaemon, eventually, open_patiently, serving
from tests.vm.guest import TIMEOUT_S, Guest

# The first test waits until the guest is built.
pytestmark = [pytest.mark.system, pytest.mark.timeout(1800)]

INTERRUPTS = 100
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Peer:
    """Somebody else's program of ppdev: its command, what it says when it is refused the port, and when it has it."""

    command: str
    refused: str
    served: str


_PYPARALLEL = "/usr/bin/python3 -c \"import parallel; port = parallel.Parallel('/dev/parport1'); {}\""
PEERS = {
    "uisp": Peer(
        "uisp -dprog=dapa -dlpt=/dev/parport1",
        "ioctl PPCLAIM: No such device or address",
        "Probably the AVR MCU is not in the RESET state.",
    ),
    "pyparallel": Peer(
        _PYPARALLEL.format("port.setData(0x77); print('written')"), "[Errno 6] No such device or address", "written"
    ),
    "libieee1284": Peer(
        "python tests/vm/inside/ieee1284_peer.py parport1",
        "claim was refused: No such device or address",
        "status 0x58",
    ),
}
HOLDER = _PYPARALLEL.format("open('/run/held', 'w').close(); import time; time.sleep(3600)")
# Claims without PPEXCL: only such a one waits. It keeps the port until it is stopped, or is stuck.
SHARER = (
    "/srv/venv/bin/python -c 'import time; from tests.vm import ppdev; port = ppdev.PpDev(1);"
    " port.ioctl(ppdev.CLAIM); time.sleep(3600)'"
)


@pytest.fixture
def peripheral(guest: Guest) -> DistantPeripheral:
    return DistantPeripheral(guest)


@pytest.fixture(autouse=True)
def only_the_daemon(guest: Guest) -> Iterator[None]:
    """Nobody else is there before a test and after it, also after one that failed."""
    yield
    guest.run(
        "systemctl stop holder waiter sharer; modprobe -r lp; modprobe ppdev; rm -f /run/held /run/file /dev/parport7"
    )


class ClientAtWork:
    """A client that owns the port, writes, reads back and pings without a pause, in a thread of its own."""

    def __init__(self, port: blocking.Port) -> None:
        self.rounds = 0
        self.ends: list[Exception] = []
        self._port = port
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._work)

    def _work(self) -> None:
        try:
            with self._port.allocated():
                while not self._is_over.is_set():
                    value = self.rounds & 0xFF
                    self._port.write_data(value)
                    assert self._port.read_data() == value
                    self._port.ping()
                    self.rounds += 1
        except Exception as exc:
            self.ends.append(exc)

    def check(self) -> None:
        """It goes on, and has met no error."""
        before = self.rounds
        eventually(lambda: bool(self.ends) or self.rounds > before + 1, "the client is held up")
        assert self.ends == []

    @classmethod
    @contextmanager
    def working(cls, url: str) -> Iterator[ClientAtWork]:
        """Let one work while the block runs."""
        with open_patiently(url) as port:
            client = cls(port)
            client._thread.start()
            try:
                yield client
            finally:
                client._is_over.set()
                client._thread.join()
        assert client.ends == []


def run_peer(guest: Guest, peer: Peer, said: str) -> None:
    """Run it; it must end in time, and have said this."""
    assert said in guest.run(peer.command).output


def users_of_card(guest: Guest) -> list[str]:
    """Who is registered with the card's port, as sysfs has it."""
    links = guest.check("readlink -f /sys/bus/parport/devices/*").split()
    return [link.rpartition("/")[2] for link in links if "/parport1/" in link]


def absences(daemon: GuestDaemon, port: str = "CARD") -> list[str]:
    """What the daemon has said of why the port is absent, a line each; there is one, or will be."""
    prefix = f"port {port} is absent: "
    eventually(lambda: prefix in daemon.log(), "it has not said why the port is absent")
    return [line.removeprefix(prefix) for line in daemon.log().splitlines() if line.startswith(prefix)]


def complaints(guest: Guest) -> int:
    """Lines of the kernel's log about programs that were refused a port."""
    return int(
        guest.check("dmesg | grep -cE 'no more devices allowed|cannot grant exclusive|failed to register' || true")
    )


# The daemon has the port


def test_others_are_refused_and_the_daemon_serves_on(guest: Guest, peripheral: DistantPeripheral) -> None:
    with (
        serving(guest, CARD) as daemon,
        open_patiently(daemon.url()) as listener,
        listener.connect_interrupt() as interrupts,
        ClientAtWork.working(daemon.url()) as client,
    ):
        for number, peer in enumerate(PEERS.values(), 1):
            run_peer(guest, peer, peer.refused)
            client.check()
            peripheral.raise_interrupt(INTERRUPTS)
            while interrupts.received < number * INTERRUPTS:
                assert interrupts.next(timeout=TIMEOUT_S) is not None
        assert interrupts.received == len(PEERS) * INTERRUPTS
        assert interrupts.lost == 0
        assert "is in use" in guest.run("modprobe -r ppdev").output
        client.check()
    for peer in PEERS.values():
        run_peer(guest, peer, peer.served)


def test_who_is_refused_moves_no_line(guest: Guest, peripheral: DistantPeripheral) -> None:
    with serving(guest, CARD):
        before = peripheral.report().write_count
        for peer in PEERS.values():
            run_peer(guest, peer, peer.refused)
        assert peripheral.report().write_count == before


def test_the_printer_driver_comes_second(guest: Guest) -> None:
    """It has to be loaded again to get the port later: it looks for ports only then."""
    with serving(guest, CARD) as daemon, ClientAtWork.working(daemon.url()) as client:
        guest.check("modprobe lp")
        client.check()
        (user,) = users_of_card(guest)
        assert user.startswith("ppdev1.")
    assert users_of_card(guest) == []
    guest.check("modprobe -r lp && modprobe lp")
    assert users_of_card(guest) == ["lp.1"]


def test_a_program_that_waits_for_another_port_holds_everybody_up_and_afterwards_all_goes_on(guest: Guest) -> None:
    """That is Linux': it waits under a lock that all of ppdev has in common."""
    values: list[int] = []
    with serving(guest, PC_PORT) as daemon, open_patiently(daemon.url("PC")) as port:
        for unit, place in (("sharer", "nanosleep"), ("waiter", "parport_claim_or_block")):
            guest.check(f"systemd-run --quiet --collect --property=RuntimeMaxSec=600 --unit={unit} {SHARER}")
            wait_until_in(guest, unit, place)
        reading = threading.Thread(target=lambda: values.append(port.read_status()))
        reading.start()
        wait_until_in(guest, daemon.unit, "pp_ioctl")
        guest.check("systemctl stop waiter && systemctl stop sharer")
        reading.join()
        assert len(values) == 1
        assert port.read_control() & 0x0F == 0x0C


def wait_until_in(guest: Guest, unit: str, function: str) -> None:
    """Wait until a unit's process is in this function of the kernel."""
    guest.check(
        f"until grep -q {function} /proc/$(systemctl show --property=MainPID --value {unit})/stack; do sleep 0.1; done"
    )


# Somebody else has the port


def test_the_printer_driver_came_first(guest: Guest) -> None:
    guest.check("modprobe lp")
    before = complaints(guest)
    with serving(guest, CARD) as daemon:
        (said,) = absences(daemon)
        assert said == (
            "/dev/parport1: busy: the printer driver lp holds the port; unload it (modprobe -r lp) and keep it away "
            "(echo blacklist lp > /etc/modprobe.d/lptd.conf)"
        )
        assert daemon.status()["why_absent"] == said
        with open_patiently(daemon.url()) as port:
            guest.check("modprobe -r lp")
            eventually(lambda: daemon.status()["why_absent"] is None, "the daemon has not taken the port")
            with port.allocated():
                port.write_data(0x3C)
                assert port.read_data() == 0x3C
        eventually(lambda: "port CARD is there" in daemon.log(), "it has not said that it has the port")
        assert complaints(guest) == before, "it has not tried what cannot be"


def test_another_program_came_first(guest: Guest) -> None:
    guest.check(f"systemd-run --quiet --collect --unit=holder {HOLDER}")
    guest.check("until [ -e /run/held ]; do sleep 0.1; done")
    with serving(guest, CARD) as daemon:
        (said,) = absences(daemon)
        assert said == (
            "/dev/parport1: busy: another program holds the port; find it (as root: fuser -v /dev/parport1) and end "
            "it, then the daemon takes the port"
        )
        guest.check("systemctl stop holder")
        eventually(lambda: daemon.status()["why_absent"] is None, "the daemon has not taken the port")
        with ClientAtWork.working(daemon.url()) as client:
            client.check()


# Something is missing


def refusals(guest: Guest, devices: dict[str, str], *properties: str) -> dict[str, str]:
    """What `lptd serve`, as a unit with these properties, says of each device; it stays up until it is stopped."""
    tables = [f'[[port]]\nname = "{name}"\ndevice = "{device}"\n' for name, device in devices.items()]
    text = '[server]\nlisten = ["lpt://127.0.0.1:0"]\n' + "".join(tables)
    (guest.share / "refused.toml").write_text(text, encoding="utf-8")
    options = " ".join(f"--property={each}" for each in properties)
    log = f"journalctl --quiet --output=cat --unit=refused-{next(_numbers)}"
    unit = log.rpartition("=")[2]
    guest.check(
        f"systemd-run --quiet --unit={unit} {options} /srv/venv/bin/lptd serve --config /srv/share/refused.toml"
    )
    guest.check(f"until {log} | grep -q 'listening on'; do systemctl is-active -q {unit} || exit 1; sleep 0.1; done")
    guest.check(f"systemctl is-active {unit} && systemctl stop {unit}")
    said = re.findall(r"^port (\S+) is absent: (.*)$", guest.check(f"journalctl --sync && {log}"), re.MULTILINE)
    assert len(said) == len(devices), "one line for each"
    return {name: reason.removeprefix(f"{devices[name]}: ") for name, reason in said}


def test_what_is_said_of_devices_that_are_no_ports(guest: Guest) -> None:
    guest.check("modprobe lp; touch /run/file; mknod /dev/parport7 c 99 7")
    said = refusals(
        guest,
        {
            "MISSING": "/dev/parport9",
            "FILE": "/run/file",
            "FOLDER": "/dev",
            "NULL": "/dev/null",
            "PRINTER": "/dev/lp0",
            "EMPTY": "/dev/parport7",
        },
    )
    not_a_port = "not a parallel port of ppdev; use a /dev/parportN"
    assert said == {
        "MISSING": "no such device; load the drivers (modprobe -a parport_pc ppdev), then look for /dev/parport*; "
        "USB adapters for printers are no parallel ports",
        "FILE": not_a_port,
        "FOLDER": "cannot be opened: Is a directory",
        "NULL": not_a_port,
        "PRINTER": not_a_port,
        "EMPTY": "no port behind this node; load its driver (modprobe parport_pc)",
    }


def test_what_is_said_without_permission(guest: Guest) -> None:
    card = {"CARD": "/dev/parport1"}
    assert refusals(guest, card, "User=nobody") == {
        "CARD": "permission denied; the daemon's user must be in the group lp (usermod -aG lp USER)"
    }
    assert refusals(guest, card, "User=nobody", "Group=lp", "DevicePolicy=closed") == {
        "CARD": "not permitted; the unit's sandbox must allow it (DeviceAllow=char-ppdev rw)"
    }


def test_a_kernel_whose_ppdev_is_loaded_later(guest: Guest) -> None:
    guest.check("modprobe -r ppdev")
    with serving(guest, CARD) as daemon:
        (said,) = absences(daemon)
        assert said.startswith("/dev/parport1: no such device; load the drivers (modprobe -a parport_pc ppdev)")
        guest.check("modprobe ppdev")
        eventually(lambda: daemon.status()["why_absent"] is None, "the daemon has not taken the port")
