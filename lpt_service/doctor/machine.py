"""What the files of a Linux machine tell: processes, users, listening sockets, ports."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Final, NamedTuple

_TCP_LISTENING: Final = "0A"
_UNIX_LISTENING: Final = "00010000"  # __SO_ACCEPTCON among a Unix socket's flags
_TICKS_HZ: Final = 100  # of /proc/PID/stat; the same on every machine that Linux tells it to (USER_HZ)


class Process(NamedTuple):
    """A process; `opened` has what its descriptors lead to: paths, and `socket:[inode]`. Empty where that is hidden."""

    pid: int
    name: str
    opened: frozenset[str]

    def __str__(self) -> str:
        return f"{self.name} (process {self.pid})"


class Listening(NamedTuple):
    """A socket that listens: `address` is a path, or an IP address; `tcp_port` is 0 for a path."""

    address: str
    tcp_port: int
    inode: str

    def covers(self, address: str, tcp_port: int) -> bool:
        """Whether a client that connects to this address comes out here."""
        if tcp_port != self.tcp_port:
            return False
        if address == self.address or not tcp_port:
            return address == self.address
        return ipaddress.ip_address(self.address).is_unspecified or not _is_ip(address)


class Machine:
    """A Linux machine, seen through its files below `root`. What cannot be read is as if it were not there."""

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = root

    def path(self, name: str) -> Path:
        """Where a file of the machine, named by its absolute path, is to be found."""
        return self.root / name.lstrip("/")

    def text(self, name: str) -> str:
        """What a file says; empty if it cannot be read."""
        try:
            return self.path(name).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""

    def names(self, folder: str) -> list[str]:
        """What is in a folder, in order; nothing if it cannot be read."""
        try:
            return sorted(each.name for each in self.path(folder).iterdir())
        except OSError:
            return []

    # Users

    def user(self, name: str) -> tuple[int, set[int]] | None:
        """The number of a user, and of all groups that it is in; None: there is no such user."""
        for line in self.text("/etc/passwd").splitlines():
            fields = line.split(":")
            if fields[0] == name and len(fields) > 3:
                return int(fields[2]), {int(fields[3])} | {
                    number for number, members in self._groups.values() if name in members
                }
        return None

    def group(self, name: str) -> int | None:
        """The number of a group."""
        return self._groups[name][0] if name in self._groups else None

    @cached_property
    def _groups(self) -> dict[str, tuple[int, list[str]]]:
        lines = (line.split(":") for line in self.text("/etc/group").splitlines())
        return {fields[0]: (int(fields[2]), fields[3].split(",")) for fields in lines if len(fields) > 3}

    # Processes

    @cached_property
    def processes(self) -> list[Process]:
        """All that run and can be seen, but this one."""
        found = []
        for pid in sorted({int(name) for name in self.names("/proc") if name.isdecimal()} - {os.getpid()}):
            opened = set()
            for number in self.names(f"/proc/{pid}/fd"):
                try:
                    opened.add(os.readlink(self.path(f"/proc/{pid}/fd/{number}")))
                except OSError:  # closed meanwhile
                    continue
            found.append(Process(pid, self.text(f"/proc/{pid}/comm").strip(), frozenset(opened)))
        return found

    def holders(self, opened: str) -> list[Process]:
        """Who has it open: a path, or `socket:[inode]`."""
        return [process for process in self.processes if opened in process.opened]

    def started_s(self, pid: int) -> float:
        """When a process began, in seconds since 1970; 0: not known."""
        fields = self.text(f"/proc/{pid}/stat").rpartition(")")[2].split()
        booted = re.search(r"^btime (\d+)$", self.text("/proc/stat"), re.MULTILINE)
        return int(booted[1]) + int(fields[19]) / _TICKS_HZ if booted and len(fields) > 19 else 0.0

    # Sockets

    @cached_property
    def listening(self) -> list[Listening]:
        """All sockets that listen."""
        return [*self._tcp("/proc/net/tcp"), *self._tcp("/proc/net/tcp6"), *self._unix()]

    def _tcp(self, table: str) -> Iterator[Listening]:
        for line in self.text(table).splitlines()[1:]:
            fields = line.split()
            if len(fields) > 9 and fields[3] == _TCP_LISTENING:
                address, _, port = fields[1].partition(":")
                yield Listening(_ip(address), int(port, 16), fields[9])

    def _unix(self) -> Iterator[Listening]:
        for line in self.text("/proc/net/unix").splitlines()[1:]:
            fields = line.split(maxsplit=7)
            if len(fields) > 7 and fields[3] == _UNIX_LISTENING:
                yield Listening(fields[7], 0, fields[6])


def _ip(digits: str) -> str:
    """The kernel shows an address as words of four bytes, each turned round on a little-endian machine."""
    raw = bytes.fromhex(digits)
    return str(ipaddress.ip_address(b"".join(raw[at : at + 4][::-1] for at in range(0, len(raw), 4))))


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
