"""The installed service under systemd: cold start, sandbox, watchdog, reload, restarts and kills under clients, memory.

lptd comes from the Debian package; /dev/parport1 is the port whose peripheral the test plays.
"""

from __future__ import annotations

import contextlib
import json
import random
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lpt_client.events import Event, Reconnected, Sync
from tests.e2e.client import DATA, RawClient
from tests.vm.daemon import SAFE_CONTROL, SAFE_DATA, DistantPeripheral, eventually, greet, open_patiently
from tests.vm.guest import DAEMON_PORT, TIMEOUT_S, Guest, GuestError
from tests.vm.inside.restart_load import LISTENERS
from tests.vm.inside.sandbox_probe import ATTEMPTS
from tests.vm.installed import CONFIG, EVERYWHERE, Installed
from tests.vm.machine import execute

pytestmark = [pytest.mark.system, pytest.mark.timeout(1800)]

SAFE = [("data", SAFE_DATA), ("control", SAFE_CONTROL)]
INTERRUPT_ENABLE = 0x10
NEEDED = 5  # of the attempts in the sandbox, the first ones
WATCHDOG_S = 15
RESTARTS = 50
KILLS = 8
# QEMU's network tries to reach a guest that is not up with growing pauses; a new connection begins anew.
CONNECT_AGAIN_S = 10
MANY_INTERRUPTS = 2_000_000
# How long one look at the socket lasts while a flood goes on.
DRAIN_S = 0.5
# A ring of 65,536 entries of 42 bytes is full long before; what comes on top is the allocator's.
GROWTH_MAX_KIB = 4096


@pytest.fixture(scope="module")
def installed(package: Path) -> Iterator[Installed]:
    with Guest() as guest:
        service = Installed(guest)
        service.install(package)
        service.configure(CONFIG + EVERYWHERE)
        service.listen_everywhere()
        yield service


@pytest.fixture
def peripheral(installed: Installed) -> DistantPeripheral:
    installed.check("systemctl start lptd")
    return DistantPeripheral(installed.guest)


def connect(installed: Installed, port: str = "CARD", **keys: str) -> RawClient:
    return greet(installed.guest, port=port, **keys)


def url(installed: Installed, port: str = "CARD") -> str:
    host, tcp_port = installed.guest.address()
    return f"lpt://{host}:{tcp_port}/{port}"


def test_the_first_client_starts_a_cold_daemon(installed: Installed) -> None:
    installed.check("systemctl stop lptd.service")
    assert installed.pid == 0
    begin = time.monotonic()
    client = connect(installed)
    assert client.call("status")["state"] == "ready"
    print(f"first answer of a cold daemon after {time.monotonic() - begin:.1f} s")
    client.close()
    assert installed.show("ActiveState") == "active"


def test_the_port_works_inside_the_sandbox_and_the_journal_has_fields(
    installed: Installed, peripheral: DistantPeripheral
) -> None:
    client = connect(installed, client="an experiment")
    client.connect_interrupt()
    client.allocate()
    client.write(DATA, 0x55)
    assert peripheral.report().data == 0x55
    peripheral.raise_interrupt(3)
    seen = 0
    while seen < 3:
        seen += client.notification("interrupt")[2]
    number = client.welcome["session"]
    client.close()
    records = installed.journal("LPT_PORT=CARD", "LPT_CLIENT='an experiment'")
    assert records
    assert all(record["LPT_SESSION"] == str(number) for record in records)
    assert {record["PRIORITY"] for record in records} == {"6"}
    hello = f"session {number} (anonymous): hello from 'an experiment'"
    assert any(record["MESSAGE"].startswith(hello) for record in records)


def test_nothing_outside_its_needs_works_inside_the_sandbox(installed: Installed) -> None:
    probe = "/usr/bin/python3 -IB /srv/project/tests/vm/inside/sandbox_probe.py"
    installed.check(
        "systemctl stop lptd.socket lptd.service; chmod 666 /dev/vparport; mkdir -p /run/systemd/system\n"
        f"sed -e 's#^ExecStart=.*#ExecStart={probe}#' -e 's/^Type=.*/Type=oneshot/' -e 's/^Restart=.*//'"
        " -e 's/^WatchdogSec=.*//' /usr/lib/systemd/system/lptd.service >/run/systemd/system/probe.service\n"
        "systemctl daemon-reload; systemctl start probe; systemctl start lptd.socket lptd.service"
    )
    lines = installed.log("probe").splitlines()
    (told,) = (json.loads(line) for line in lines if line.startswith("{"))
    names = list(ATTEMPTS)
    assert {name: told[name] for name in names[:NEEDED]} == dict.fromkeys(names[:NEEDED], True)
    assert {name: told[name] for name in names[NEEDED:] if told[name] is True} == {}, "not refused"
    refusals = {"EPERM", "EACCES", "EROFS", "ENOENT", "EAFNOSUPPORT", "ESRCH"}
    assert {told[name] for name in names[NEEDED:]} <= refusals, told
    assert (told["CapEff"], told["CapBnd"]) == ("0" * 16, "0" * 16)
    assert (told["NoNewPrivs"], told["Seccomp"]) == ("1", "2")
    judged = installed.check("systemd-analyze security --no-pager lptd.service")
    found = re.search(r"Overall exposure level for lptd\.service: ([\d.]+)", judged)
    assert found is not None
    print(f"exposure {found[1]}")
    assert float(found[1]) <= 1.6


def test_reload(installed: Installed) -> None:
    client = connect(installed)
    installed.configure("typo = 1\n")
    installed.check("systemctl reload lptd")
    installed.wait_for("systemctl show --property=StatusText lptd | grep -q 'the last reload was refused'")
    assert "typo: unknown key" in installed.log("lptd", "--priority=err")
    before = installed.pid
    told = installed.run("/usr/lib/lptd/restart-when-idle").output
    assert told.startswith("lptd: NOT restarted, its configuration has errors: "), told
    installed.configure(CONFIG + EVERYWHERE)
    installed.check("systemctl reload lptd")
    installed.wait_for("! systemctl show --property=StatusText lptd | grep -q refused")
    assert client.call("ping")
    assert installed.pid == before
    client.close()


def test_a_stopped_daemon_is_killed_and_restarted_and_clients_recover(
    installed: Installed, peripheral: DistantPeripheral
) -> None:
    restarts = int(installed.show("NRestarts"))
    with (
        open_patiently(url(installed), reconnect=True) as port,
        port.connect_interrupt() as events,
    ):
        installed.check("systemctl kill --kill-whom=main --signal=STOP lptd")
        begin = time.monotonic()
        heard: list[Event] = []
        while not any(isinstance(event, Sync) for event in heard):
            event = events.next(timeout=2 * WATCHDOG_S + TIMEOUT_S)
            assert event is not None, "it was not restarted"
            heard.append(event)
        print(f"stopped, killed, restarted, connected again after {time.monotonic() - begin:.1f} s")
        assert any(isinstance(event, Reconnected) for event in heard)
        last = heard[-1]
        assert isinstance(last, Sync)
        assert (last.reason, last.lost) == ("restarted", None)
        assert int(installed.show("NRestarts")) == restarts + 1
        peripheral.raise_interrupt(2)
        while events.received < 2:
            assert events.next(timeout=TIMEOUT_S) is not None
        with port.allocated(timeout=TIMEOUT_S):
            port.write_data(1)
    assert "Watchdog timeout" in installed.log()


def is_safe_before(writes: list[tuple[str, int]], value: int) -> bool:
    """Whether both lines were made safe before a client wrote its value."""
    first = writes.index(("data", value))
    levels = {(register, level & ~INTERRUPT_ENABLE) for register, level in writes[:first]}
    return set(SAFE) <= levels


def test_killed_at_any_moment_the_next_is_safe_before_anybody_is_granted(
    installed: Installed, peripheral: DistantPeripheral
) -> None:
    moments = random.Random(1)
    for number in range(KILLS):
        owner = connect(installed)
        owner.allocate()
        owner.write(DATA, 0x7E)
        before = peripheral.report().write_count
        installed.check(f"sleep {moments.uniform(0, 0.2):.3f}; systemctl kill --kill-whom=main --signal=KILL lptd")
        if number % 2:  # and once more while it starts
            installed.wait_for('[ "$(systemctl show --property=MainPID --value lptd)" -gt 0 ]')
            installed.check(f"sleep {moments.uniform(0, 2):.3f}; systemctl kill --kill-whom=main --signal=KILL lptd")
        with contextlib.suppress(ConnectionError, EOFError):
            owner.rest()
        owner.close()
        value = 0x10 + number
        heir = connect_patiently(installed)
        heir.allocate()
        heir.write(DATA, value)
        writes = peripheral.writes_since(before)
        assert is_safe_before(writes, value), writes
        heir.close()


def connect_patiently(installed: Installed) -> RawClient:
    """A daemon that is killed takes those with it whom it had just let in."""
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        try:
            return connect(installed)
        except (EOFError, ConnectionError):
            assert time.monotonic() < deadline, "it does not come back"
            time.sleep(0.1)


@pytest.mark.timeout(3600)
def test_restarts_under_load(installed: Installed) -> None:
    connect(installed, "SIMULATED").close()
    installed.wait_for("! systemctl show --property=StatusText lptd | grep -qE '[1-9][0-9]* sessions'")
    before = installed.descriptors()
    folder = installed.guest.share / "load"
    folder.mkdir(exist_ok=True)
    load = "/srv/venv/bin/python -m tests.vm.inside.restart_load /srv/share/load"
    installed.check(f"systemd-run --quiet --collect --unit=load --working-directory=/srv/project {load}")
    installed.wait_for("[ -e /srv/share/load/begun ]")
    installed.wait_for("systemctl show --property=StatusText lptd | grep -q 'SIMULATED: .* 2[0-9] sessions'")
    begin = time.monotonic()
    for _ in range(RESTARTS):
        installed.check("systemctl restart lptd")
    print(f"{RESTARTS} restarts under load: {(time.monotonic() - begin) / RESTARTS:.1f} s each")
    (folder / "stop").touch()
    installed.wait_for("[ -e /srv/share/load/account.json ]")
    account = json.loads((folder / "account.json").read_text(encoding="utf-8"))
    listeners = account.pop("listeners")
    print(account, listeners[0])
    assert account["hung"] == 0
    assert "refused" not in account
    assert account["hellos"] > RESTARTS
    assert account["pulses"] > 0
    assert len(listeners) == LISTENERS, "a listener ended with an error"
    for each in listeners:
        assert each.get("unexplained", 0) == 0, each
        assert 0 < each["restarted"] <= RESTARTS, each
    assert sum(each["received"] for each in listeners) > 0
    installed.wait_for("! systemctl show --property=StatusText lptd | grep -qE '[1-9][0-9]* sessions'")
    eventually(lambda: installed.descriptors() <= before, "descriptors are left")
    assert "Traceback" not in installed.log()


def test_memory_after_millions_of_interrupts(installed: Installed, peripheral: DistantPeripheral) -> None:
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(contextlib.closing(connect(installed))) for _ in range(2)]
        for client in clients:
            client.connect_interrupt()
        reader = clients[0]
        kept = []
        for goal in (MANY_INTERRUPTS // 4, MANY_INTERRUPTS):
            at = peripheral.report().interrupts
            with peripheral.flooding():
                while peripheral.report().interrupts - at < goal:
                    drain_socket(reader)
            kept.append(installed.memory_kib())
        for client in clients:
            drain_socket(client)
    told = installed.status("CARD")["interrupts"]
    print(f"memory after {MANY_INTERRUPTS // 4} interrupts: {kept[0]} KiB; after {told['generated']}: {kept[1]} KiB")
    assert told["generated"] >= MANY_INTERRUPTS
    assert kept[1] - kept[0] < GROWTH_MAX_KIB


def drain_socket(client: RawClient) -> None:
    """Throw away what has come; no longer than DRAIN_S, because a flood has no end."""
    deadline = time.monotonic() + DRAIN_S
    client.socket.settimeout(0.05)
    with contextlib.suppress(TimeoutError, ConnectionError):  # who has not read for long is sent away
        while time.monotonic() < deadline and client.socket.recv(1 << 20):
            pass
    client.socket.settimeout(TIMEOUT_S)


def test_from_boot_to_the_first_answer(installed: Installed) -> None:
    """The last one: the guest boots anew, with the package in it."""
    guest = installed.guest
    with socket.socket(socket.AF_UNIX) as monitor:
        monitor.connect(str(guest.share.parent / "monitor"))
        with monitor.makefile("rw", encoding="utf-8") as lines:
            lines.readline()
            execute(lines, "qmp_capabilities")
            execute(lines, "set-action", reboot="reset")
    stream = first_hello(installed, TIMEOUT_S)["stream"]
    with contextlib.suppress(GuestError):
        installed.check("systemctl reboot", 5)
    deadline = time.monotonic() + TIMEOUT_S
    welcome: dict[str, Any] = {"stream": stream}
    while welcome["stream"] == stream:
        assert time.monotonic() < deadline, "no answer after the boot"
        with contextlib.suppress(OSError, EOFError):
            welcome = first_hello(installed, CONNECT_AGAIN_S)
    first_s = welcome["clock"]["monotonic_ns"] / 1e9
    installed.wait_for("systemctl --quiet is-active lptd")
    ready_s = int(installed.show("ActiveEnterTimestampMonotonic")) / 1e6
    print(f"after the kernel began: ready at {ready_s:.1f} s, first answer at {first_s:.1f} s")


def first_hello(installed: Installed, timeout_s: float) -> dict[str, Any]:
    """What hello answers to a client that comes and goes."""
    with contextlib.closing(RawClient(installed.guest.address(DAEMON_PORT))) as client:
        client.socket.settimeout(timeout_s)
        return client.hello(port="CARD").welcome
