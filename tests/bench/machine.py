"""What a reader needs to know of the machine: never its name, nor anybody's."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_PACKAGES: Final = ("trio", "msgpack", "rpyc", "Pyro5", "grpcio", "websockets")
_SERVERS: Final = {
    "mosquitto": ["mosquitto", "-h"],
    "redis": ["redis-server", "--version"],
    "nats": ["nats-server", "--version"],
}
_PATH: Final = "/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin"


def describe() -> dict[str, str]:
    """Processor, cores, memory, system, and the versions of what was measured."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "processor": _processor(),
        "cores": f"{os.cpu_count()}",
        "memory": f"{pages / 2**30:.0f} GiB",
        "system": f"Linux {platform.release().split('-')[0]}, {_system()}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}{_origin()}",
        **dict(_versions()),
    }


def _processor() -> str:
    text = Path("/proc/cpuinfo").read_text()
    match = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    virtual = ", in a virtual machine" if re.search(r"^flags\s*:.*\bhypervisor\b", text, re.MULTILINE) else ""
    return (match[1].strip() if match else platform.machine()) + virtual


def _origin() -> str:
    """A distribution's Python is optimized by profile; one built at home often is not, and up to half slower."""
    return ", the system's own" if sys.base_prefix == "/usr" else ", not the system's own"


def _system() -> str:
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        return "of no name"
    return release.get("PRETTY_NAME", release["NAME"])


def _versions() -> Iterator[tuple[str, str]]:
    for name in _PACKAGES:
        try:
            yield name, importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    for name, (program, option) in _SERVERS.items():
        path = shutil.which(program, path=_PATH)
        if path is not None:
            told = subprocess.run([path, option], capture_output=True, text=True, check=False)
            match = re.search(r"\d+\.\d+(\.\d+)?", told.stdout + told.stderr)
            yield name, match[0] if match else "?"
