"""`lptd doctor` on a machine made of files: nothing is wrong with it, and then one thing after the other is."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from lpt_service import cli
from lpt_service.doctor.checks import Finding, examine
from lpt_service.doctor.machine import Machine

# Beyond what Linux gives a process, so that none is the test's own.
SYSTEMD, DAEMON, STRANGER = 1, 4_194_305, 4_194_306
LP = os.getgid()  # files of the test are of this group
OTHER = LP + 1
CONFIG = '[[port]]\ndevice = "/dev/parport0"\nenable_connect_interrupt = true\n'
TCP = "  sl  local_address rem_address   st\n   0: 0100007F:1502 00000000:0000 0A 0:0 00:0 0 0 0 {inode} 1\n"
UNIX = "Num RefCount Protocol Flags Type St Inode Path\n0: 00000002 00000000 00010000 0001 01 {inode} {path}\n"


class FakeMachine(Machine):
    """A machine on which all is well."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.write("/etc/lptd/config.toml", CONFIG, 0o640)
        self.write("/etc/passwd", f"root:x:0:0:\nlpt:x:{os.getuid() + 1}:{OTHER}:::\n")
        self.write("/etc/group", f"lp:x:{LP}:somebody,lpt\nlpt:x:{OTHER}:\n")
        self.write("/proc/devices", "Character devices:\n 99 ppdev\n")
        self.write("/proc/sys/dev/parport/parport0/irq", "7\n")
        self.write("/proc/sys/dev/parport/parport0/devices/ppdev0/timeslice", "200\n")
        self.write("/dev/parport0", "", 0o660)
        self.write("/run/lptd/lptd.sock", "")
        self.write("/proc/net/tcp", TCP.format(inode=71))
        self.write("/proc/net/unix", UNIX.format(inode=72, path="/run/lptd/lptd.sock"))
        self.write("/proc/stat", "cpu 1\nbtime 1000\n")
        self.process(SYSTEMD, "systemd", "socket:[71]", "socket:[72]")
        self.process(DAEMON, "lptd", "socket:[71]", "socket:[72]", "/dev/parport0")
        self.write(f"/proc/{DAEMON}/stat", f"{DAEMON} (lptd) S" + " 0" * 18 + " 5000 0\n")
        for target, unit in (("multi-user", "lptd.service"), ("sockets", "lptd.socket")):
            self.link(f"/etc/systemd/system/{target}.target.wants/{unit}", f"/usr/lib/systemd/system/{unit}")

    def write(self, name: str, text: str, mode: int = 0o644) -> None:
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)

    def link(self, name: str, target: str) -> None:
        self.path(name).parent.mkdir(parents=True, exist_ok=True)
        self.path(name).symlink_to(target)

    def remove(self, name: str) -> None:
        self.path(name).unlink()

    def process(self, pid: int, name: str, *opened: str) -> None:
        self.write(f"/proc/{pid}/comm", f"{name}\n")
        folder = self.path(f"/proc/{pid}/fd")
        for number in self.names(f"/proc/{pid}/fd"):
            (folder / number).unlink()
        for descriptor, target in enumerate(opened):
            self.link(f"/proc/{pid}/fd/{descriptor}", target)

    def end(self, pid: int) -> None:
        self.process(pid, "gone")

    def set_config(self, text: str) -> None:
        self.write("/etc/lptd/config.toml", text, 0o640)


@pytest.fixture
def machine(tmp_path: Path) -> FakeMachine:
    return FakeMachine(tmp_path)


def wrong(machine: Machine) -> list[Finding]:
    return [finding for finding in examine(Machine(machine.root)) if not finding.is_well]


def test_all_is_well(machine: FakeMachine) -> None:
    findings = examine(machine)
    assert all(finding.is_well for finding in findings), findings
    assert {finding.check for finding in findings} == {
        "versions", "configuration", "user", "modules", "port LPT1", "service", "listener",
    }  # fmt: skip
    told = "\n".join(finding.what for finding in findings)
    assert f"/dev/parport0, held by lptd (process {DAEMON})" in told
    opened = f"opened by systemd (process 1) and lptd (process {DAEMON})"
    assert f"lpt+unix:///run/lptd/lptd.sock: {opened}" in told
    assert f"lpt://127.0.0.1:5378: {opened}" in told


def let_a_stranger_listen(machine: FakeMachine) -> None:
    machine.process(STRANGER, "nc", "socket:[73]")
    machine.write("/proc/net/tcp", TCP.format(inode=73))


Change = Callable[[FakeMachine], object]
CASES: list[tuple[str, Change, str, str, str]] = [
    (
        "configuration with errors",
        lambda machine: machine.set_config("[server]\nlisten = []\ntypo = 1\n"),
        "configuration", "/etc/lptd/config.toml: server.typo: unknown key", "lptd check-config",
    ),
    (
        "no configuration",
        lambda machine: machine.remove("/etc/lptd/config.toml"),
        "configuration", "/etc/lptd/config.toml: cannot be read: No such file", "edit /etc/lptd/config.toml",
    ),
    (
        "everybody reads the tokens",
        lambda machine: machine.path("/etc/lptd/config.toml").chmod(0o644),
        "permissions", "everybody may read", "chmod 640 /etc/lptd/config.toml",
    ),
    (
        "the daemon may not read its configuration",
        lambda machine: machine.path("/etc/lptd/config.toml").chmod(0o600),
        "permissions", "the user lpt may not read", "chown root:lpt",
    ),
    (
        "no user",
        lambda machine: machine.write("/etc/passwd", "root:x:0:0:\n"),
        "user", "there is no user lpt", "systemd-sysusers",
    ),
    (
        "not in the group",
        lambda machine: machine.write("/etc/group", f"lp:x:{OTHER + 1}:\nother:x:{LP}:lpt\n"),
        "user", "lpt is not in the group lp", "usermod -aG lp lpt",
    ),
    (
        "no module",
        lambda machine: machine.write("/proc/devices", "Character devices:\n  1 mem\n"),
        "modules", "ppdev is not loaded", "modprobe -a parport_pc ppdev",
    ),
    (
        "no device",
        lambda machine: machine.path("/dev/parport0").rename(machine.path("/dev/parport1")),
        "port LPT1", "there is no /dev/parport0; there is /dev/parport1", "dmesg | grep parport",
    ),
    (
        "no permission",
        lambda machine: machine.path("/dev/parport0").chmod(0o600),
        "port LPT1", "lpt may not use /dev/parport0", "chgrp lp /dev/parport0",
    ),
    (
        "the printer driver",
        lambda machine: machine.write("/proc/sys/dev/parport/parport0/devices/lp/timeslice", "200\n"),
        "port LPT1", "the printer driver lp holds /dev/parport0", "modprobe -r lp",
    ),
    (
        "another program",
        lambda machine: machine.process(STRANGER, "avrdude", "/dev/parport0"),
        "port LPT1", f"avrdude (process {STRANGER}) holds /dev/parport0", f"kill {STRANGER}",
    ),
    (
        "no interrupt",
        lambda machine: machine.write("/proc/sys/dev/parport/parport0/irq", "-1\n"),
        "port LPT1", "/dev/parport0 has no interrupt", "irq=7",
    ),
    (
        "not enabled",
        lambda machine: machine.remove("/etc/systemd/system/sockets.target.wants/lptd.socket"),
        "service", "not started at boot: lptd.socket", "systemctl enable --now lptd.socket",
    ),
    (
        "not running",
        lambda machine: machine.end(DAEMON),
        "service", "lptd does not run", "systemctl start lptd.socket lptd",
    ),
    (
        "an old daemon",
        lambda machine: machine.write("/var/lib/dpkg/info/lptd.list", ""),
        "service", f"lptd (process {DAEMON}) is older than the package", "restart-when-idle",
    ),
    (
        "nobody listens",
        lambda machine: machine.write("/proc/net/tcp", ""),
        "listener", "nobody listens on lpt://127.0.0.1:5378", "systemctl restart lptd.socket",
    ),
    (
        "a stranger listens",
        let_a_stranger_listen,
        "listener", f"nc (process {STRANGER}) listens on lpt://127.0.0.1:5378", f"kill {STRANGER}",
    ),
    (
        "the socket's group",
        lambda machine: machine.write("/etc/group", f"lp:x:{OTHER + 1}:lpt\nlpt:x:{LP}:\n"),
        "listener", "/run/lptd/lptd.sock is not of the group lp", "systemctl restart lptd.socket",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("change", "check", "what", "advice"), [case[1:] for case in CASES], ids=[c[0] for c in CASES])
def test_what_is_wrong_is_told_with_its_remedy(
    machine: FakeMachine, change: Change, check: str, what: str, advice: str
) -> None:
    change(machine)
    found = wrong(machine)
    assert any(each.check == check and what in each.what and advice in each.advice for each in found), found
    assert all(each.advice for each in found)


def test_a_waiting_restart_is_well(machine: FakeMachine) -> None:
    machine.write("/var/lib/dpkg/info/lptd.list", "")
    machine.write("/run/systemd/transient/lptd-restart-when-idle.service", "")
    assert wrong(machine) == []


def test_simulated_ports_need_no_hardware(machine: FakeMachine) -> None:
    machine.set_config("")
    machine.write("/proc/devices", "")
    machine.remove("/dev/parport0")
    assert wrong(machine) == []


def test_a_listener_at_an_address_of_one_link(machine: FakeMachine) -> None:
    """The kernel's table has no interfaces."""
    machine.set_config('[server]\nlisten = [{url = "lpt://[fe80::1%eth0]:5378", insecure = true}]\n')
    address = "000080FE000000000000000001000000"
    machine.write("/proc/net/tcp", "")
    machine.write("/proc/net/tcp6", f"head\n 0: {address}:1502 {'0' * 32}:0000 0A 0:0 00:0 0 0 0 71 1\n")
    assert wrong(machine) == []


def test_a_wildcard_covers_and_other_listeners_of_the_daemon_are_told(machine: FakeMachine) -> None:
    machine.set_config('[server]\nlisten = [{url = "lpt://192.0.2.1:5378", insecure = true}, "lpt://[::1]:0"]\n')
    wildcard = "0" * 32 + ":1502 " + "0" * 32 + ":0000 0A 0:0 00:0 0 0 0 71 1\n"
    machine.write("/proc/net/tcp", "")
    machine.write("/proc/net/tcp6", f"head\n 0: {wildcard}")
    assert wrong(machine) == []
    listeners = [each.what for each in examine(Machine(machine.root)) if each.check == "listener"]
    assert [each.partition(": ")[0] for each in listeners] == ["lpt://192.0.2.1:5378", "/run/lptd/lptd.sock"]


def test_an_ordinary_user_does_not_see_who_opened_a_listener(machine: FakeMachine) -> None:
    for pid in (SYSTEMD, DAEMON):
        machine.process(pid, machine.text(f"/proc/{pid}/comm").strip())
    assert wrong(machine) == []
    assert any("only root sees" in finding.what for finding in examine(Machine(machine.root)))


def test_msgpack(machine: FakeMachine) -> None:
    (found,) = (each for each in examine(machine, "msgpack is old") if not each.is_well)
    assert (found.check, found.what) == ("versions", "msgpack is old")


def test_the_command(machine: FakeMachine) -> None:
    good = CliRunner().invoke(cli.main, ["doctor", "--root", str(machine.root)])
    assert good.exit_code == 0, good.output
    assert all(line.startswith("ok    ") for line in good.output.splitlines())
    machine.remove("/dev/parport0")
    bad = CliRunner().invoke(cli.main, ["doctor", "--root", str(machine.root)])
    assert bad.exit_code == 1
    assert "WRONG port LPT1: there is no /dev/parport0" in bad.output
    assert "      → modprobe -a parport_pc ppdev" in bad.output
    listed = json.loads(CliRunner().invoke(cli.main, ["doctor", "--json", "--root", str(machine.root)]).output)
    (port,) = (each for each in listed if each["check"] == "port LPT1")
    assert port.keys() == {"check", "is_well", "what", "advice"}
    assert port["is_well"] is False


def test_this_machine_can_be_looked_at() -> None:
    """Real tables of the kernel: our own listener is among what listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        tcp_port = server.getsockname()[1]
        # Others may listen on the same TCP port of other addresses.
        found = next(each for each in Machine().listening if each[:2] == ("127.0.0.1", tcp_port))
        assert found.covers("127.0.0.1", tcp_port)
        assert not found.covers("192.0.2.1", tcp_port)
    assert examine(Machine())
