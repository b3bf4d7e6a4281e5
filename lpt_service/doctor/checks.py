"""What is looked at, and what to type about what is found: one function for each question."""

from __future__ import annotations

import os
import platform
import stat
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from typing import Final, NamedTuple

from lpt_service import __version__, config
from lpt_service.config import SIMULATED, Config, ConfigError, PortConfig
from lpt_service.doctor.machine import Machine, Process
from lpt_service.protocol.messages import DEFAULT_UNIX_SOCKET
from lpt_service.protocol.text import utc
from lpt_service.protocol.url import UNIX, Url, split_zone
from lpt_service.server.tls_gate import TlsError, load_context, validity, warnings

CONFIG: Final = "/etc/lptd/config.toml"
USER: Final = "lpt"
GROUP: Final = "lp"
_LIBRARIES: Final = ("msgpack", "trio", "pydantic", "click")
_INSTALLED: Final = "/var/lib/dpkg/info/lptd.list"  # dpkg writes it when it unpacks
_WAITING: Final = "/run/systemd/transient/lptd-restart-when-idle.service"
_WANTED: Final = {
    "lptd.service": "/etc/systemd/system/multi-user.target.wants/lptd.service",
    "lptd.socket": "/etc/systemd/system/sockets.target.wants/lptd.socket",
}


class Finding(NamedTuple):
    """An answer: whether that is well, what was found, and if it is not well, what to do (mostly: to type)."""

    check: str
    is_well: bool
    what: str
    advice: str = ""


class Case(NamedTuple):
    """A machine and its configuration; None where that cannot be used."""

    machine: Machine
    config: Config | None


def examine(machine: Machine, msgpack_problem: str | None = None) -> list[Finding]:
    """Ask everything. `msgpack_problem` is what the command line has found out about its own msgpack."""
    findings = [_versions(msgpack_problem)]
    loaded, told = _load(machine)
    findings += told
    case = Case(machine, loaded)
    for check in _CHECKS:
        findings += check(case)
    return findings


def _versions(problem: str | None) -> Finding:
    shown = ", ".join(f"{name} {metadata.version(name)}" for name in _LIBRARIES)
    told = f"lptd {__version__}, Python {platform.python_version()}, {shown}"
    return Finding("versions", problem is None, told if problem is None else problem, "install the package anew")


def _load(machine: Machine) -> tuple[Config | None, list[Finding]]:
    try:
        loaded = config.load(machine.path(CONFIG))
    except ConfigError as exc:
        there = str(machine.path(CONFIG))
        told = [problem.replace(there, CONFIG) for problem in exc.problems]
        return None, [Finding("configuration", False, each, f"edit {CONFIG}; lptd check-config") for each in told]
    ports = ", ".join(f"{port.name} = {port.device}" for port in loaded.port)
    return loaded, [Finding("configuration", True, f"{CONFIG}: {ports}")]


def _secrets(case: Case) -> Iterator[Finding]:
    """The configuration may have tokens: for root and the daemon."""
    if case.machine.path(CONFIG).exists():
        yield from _permissions("permissions", case.machine, CONFIG, is_secret=True)


def _user(case: Case) -> Iterator[Finding]:
    user = case.machine.user(USER)
    if user is None:
        yield Finding("user", False, f"there is no user {USER}", "systemd-sysusers")
    elif case.machine.group(GROUP) not in user[1]:
        yield Finding("user", False, f"{USER} is not in the group {GROUP}", f"usermod -aG {GROUP} {USER}")
    else:
        yield Finding("user", True, f"{USER}, in the group {GROUP}")


def _permissions(check: str, machine: Machine, path: str, *, is_secret: bool) -> Iterator[Finding]:
    """A file that the daemon reads, and nobody else if it is secret."""
    now, user = machine.path(path).stat(), machine.user(USER)
    advice = f"chown root:{USER} {path}; chmod 640 {path}"
    if is_secret and now.st_mode & stat.S_IRWXO:
        yield Finding(check, False, f"everybody may read {path}", advice)
    elif user is not None and not _may(now.st_mode, now.st_uid, now.st_gid, *user, 0o4):
        yield Finding(check, False, f"the user {USER} may not read {path}", advice)


def _may(mode: int, owner: int, group: int, user: int, groups: set[int], wanted: int) -> bool:
    """Whether a user may access a file so (4 read, 2 write)."""
    shift = 6 if owner == user else 3 if group in groups else 0
    return (mode >> shift) & wanted == wanted


# Certificates


def _certificates(case: Case) -> Iterator[Finding]:
    """Those that the daemon reads when it is started or reloaded."""
    if case.config is None or not case.config.has_tls_listener:
        return
    machine, tls = case.machine, case.config.tls
    paths = {"certificate": tls.certificate, "key": tls.key}
    if tls.client_certificate != "none":
        paths["client_ca"] = tls.client_ca
    there = {name: str(machine.path(path)) for name, path in paths.items()}
    if hidden := [paths[name] for name in paths if not _is_open_to_us(there[name])]:
        yield Finding("tls", True, f"{', '.join(hidden)}: only root can have a look")
        return
    advice = "lptctl cert server NAME, and install the files (docs/operations.md, TLS)"
    try:
        context = load_context(tls.model_copy(update=there))
    except TlsError as exc:
        for what in exc.problems:
            for name, path in there.items():
                what = what.replace(path, paths[name])
            yield Finding("tls", False, what, advice)
        return
    now_s = time.time()
    wrong = [
        each for name, path in paths.items() for each in _permissions("tls", machine, path, is_secret=name == "key")
    ]
    wrong += [
        Finding("tls", False, f"{paths[name]} {warning}", f"{advice}; systemctl reload lptd")
        for name, warning in warnings(context, now_s)
    ]
    yield from wrong
    if not wrong:
        good = validity(context)
        until = f"another {good.days_left(now_s):.0f} days, until {utc(good.until_s)}"
        yield Finding("tls", True, f"{tls.certificate} is good for {until}")


def _is_open_to_us(path: str) -> bool:
    try:
        os.stat(path)
    except PermissionError:
        return False
    except OSError:
        return True  # it is not there, which is told
    return os.access(path, os.R_OK)


# Ports


def _real_ports(case: Case) -> list[PortConfig]:
    return [] if case.config is None else [port for port in case.config.port if port.device != SIMULATED]


def _modules(case: Case) -> Iterator[Finding]:
    if not _real_ports(case):
        return
    if " ppdev\n" in case.machine.text("/proc/devices"):
        yield Finding("modules", True, "ppdev is loaded")
    else:
        yield Finding("modules", False, "ppdev is not loaded", "modprobe -a parport_pc ppdev; systemctl restart lptd")


def _devices(case: Case) -> Iterator[Finding]:
    for port in _real_ports(case):
        yield from _device(case.machine, port)


def _device(machine: Machine, port: PortConfig) -> Iterator[Finding]:
    check = f"port {port.name}"
    kernel = f"/proc/sys/dev/parport/{port.device.rpartition('/')[2]}"
    try:
        now = machine.path(port.device).stat()
    except OSError:
        known = ", ".join(f"/dev/{name}" for name in machine.names("/dev") if name.startswith("parport"))
        advice = "modprobe -a parport_pc ppdev; dmesg | grep parport"
        yield Finding(check, False, f"there is no {port.device}; there is {known or 'no port at all'}", advice)
        return
    user = machine.user(USER)
    if user is not None and not _may(now.st_mode, now.st_uid, now.st_gid, *user, 0o6):
        advice = f"chgrp {GROUP} {port.device}; chmod 660 {port.device}  (for good: udevadm trigger, 60-lptd.rules)"
        yield Finding(check, False, f"{USER} may not use {port.device}", advice)
        return
    problem = _claim_problem(machine, port.device, kernel)
    if problem is not None:
        yield Finding(check, False, *problem)
    elif port.enable_connect_interrupt and machine.text(f"{kernel}/irq").strip() == "-1":
        told = f"{port.device} has no interrupt: clients will never hear one"
        advice = "options parport_pc io=0x378 irq=7 in /etc/modprobe.d/parport.conf; docs/hardware.md"
        yield Finding(check, False, told, advice)
    else:
        holders = " and ".join(map(str, machine.holders(port.device)))
        yield Finding(check, True, f"{port.device}{f', held by {holders}' if holders else ''}")


def _claim_problem(machine: Machine, device: str, kernel: str) -> tuple[str, str] | None:
    """Who keeps the daemon from the port, and what to do about it."""
    if "lp" in machine.names(f"{kernel}/devices"):
        told = f"the printer driver lp holds {device}"
        return told, "modprobe -r lp; echo blacklist lp >/etc/modprobe.d/lptd.conf"
    others = [each for each in machine.holders(device) if each.name != "lptd"]
    return (f"{others[0]} holds {device}", f"kill {others[0].pid}") if others else None


# The service


def _daemons(machine: Machine) -> list[Process]:
    return [process for process in machine.processes if process.name == "lptd" and process.opened]


def _service(case: Case) -> Iterator[Finding]:
    machine = case.machine
    missing = [unit for unit, link in _WANTED.items() if not machine.path(link).is_symlink()]
    if missing:
        told = f"not started at boot: {', '.join(missing)}"
        yield Finding("service", False, told, f"systemctl enable --now {' '.join(missing)}")
    running = [process for process in machine.processes if process.name == "lptd"]
    listed = machine.path(_INSTALLED)
    if not running:
        told = "lptd does not run"
        yield Finding("service", False, told, "systemctl start lptd.socket lptd; journalctl -u lptd -p err -n 20")
    elif machine.path(_WAITING).exists():
        yield Finding("service", True, "a new version is installed, and is started when no port is owned")
    elif listed.exists() and 0 < machine.started_s(running[0].pid) + 1 < listed.stat().st_mtime:
        advice = "/usr/lib/lptd/restart-when-idle"
        yield Finding("service", False, f"{running[0]} is older than the package that is installed", advice)
    else:
        yield Finding("service", True, " and ".join(map(str, running)))


def _listeners(case: Case) -> Iterator[Finding]:
    """Every listener of the configuration, and those that an lptd has besides."""
    machine = case.machine
    shown: set[str] = set()
    for wanted in case.config.server.listen if case.config is not None else ():
        url = Url.parse(wanted.url)
        if url.scheme != UNIX and url.tcp_port == 0:
            continue  # any that is free
        address, tcp_port = (url.path, 0) if url.scheme == UNIX else (split_zone(url.host)[0], url.tcp_port)
        found = [each for each in machine.listening if each.covers(address, tcp_port)]
        shown |= {each.inode for each in found}
        yield _listener(machine, wanted.url, [f"socket:[{each.inode}]" for each in found])
    for process in _daemons(machine):
        for each in machine.listening:
            if f"socket:[{each.inode}]" in process.opened and each.inode not in shown:
                shown.add(each.inode)
                name = each.address if not each.tcp_port else f"{each.address} port {each.tcp_port}"
                yield _listener(machine, name, [f"socket:[{each.inode}]"])
    yield from _socket_file(machine)


def _listener(machine: Machine, name: str, sockets: list[str]) -> Finding:
    if not sockets:
        advice = "systemctl restart lptd.socket; systemctl status lptd"
        return Finding("listener", False, f"nobody listens on {name}", advice)
    holders = list(dict.fromkeys(each for socket in sockets for each in machine.holders(socket)))
    if not holders:
        return Finding("listener", True, f"{name}: open (who opened it, only root sees)")
    strangers = [each for each in holders if each.name not in ("lptd", "systemd")]
    if strangers:
        return Finding("listener", False, f"{strangers[0]} listens on {name}", f"kill {strangers[0].pid}")
    return Finding("listener", True, f"{name}: opened by {' and '.join(map(str, holders))}")


def _socket_file(machine: Machine) -> Iterator[Finding]:
    """The Unix socket is for the group that may use the port."""
    path = machine.path(DEFAULT_UNIX_SOCKET)
    group = machine.group(GROUP)
    if path.exists() and group is not None and path.stat().st_gid != group:
        told = f"{DEFAULT_UNIX_SOCKET} is not of the group {GROUP}: its members are refused"
        yield Finding("listener", False, told, "systemctl restart lptd.socket lptd.service, when no port is owned")


_CHECKS: Final[tuple[Callable[[Case], Iterator[Finding]], ...]] = (
    _secrets,
    _user,
    _certificates,
    _modules,
    _devices,
    _service,
    _listeners,
)
