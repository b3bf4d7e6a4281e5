"""What machine this program runs on, and how it is scheduled: what a figure of time is worth nothing without."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Final

from lpt_service import __version__

_POLICIES: Final = ("SCHED_OTHER", "SCHED_FIFO", "SCHED_RR", "SCHED_BATCH", "SCHED_IDLE")
_UNKNOWN: Final = "not known"


def facts() -> Mapping[str, str]:
    """Name → value, as text for people. What this system does not tell is "not known"."""
    return {
        "CPU": cpu_model(_text("/proc/cpuinfo")),
        "CPU cores": str(os.cpu_count() or _UNKNOWN),
        "CPU frequency governor": _text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").strip() or _UNKNOWN,
        "Virtual machine": virtual_machine(_text("/proc/cpuinfo")),
        "System": f"{platform.system()} {platform.machine()}",
        "Kernel": f"{platform.release()} {platform.version()}",
        "Kernel preemption": preemption(platform.version(), _text("/sys/kernel/realtime")),
        "Client's scheduling policy": scheduling_policy(),
        "Client's CPU affinity": cpu_affinity(),
        "Clock": clock(),
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "lptctl": f"lpt-service {__version__}",
    }


def now() -> str:
    """Date and time, with the time zone."""
    local = datetime.now().astimezone()
    return f"{local:%Y-%m-%d %H:%M:%S} {local.tzname()} ({local:%z})"


def cpu_model(cpuinfo: str) -> str:
    """The processor's name, given the text of /proc/cpuinfo; its members differ from one architecture to another."""
    members = _members(cpuinfo)
    for name in ("model name", "Model", "Hardware", "cpu model", "cpu"):
        if members.get(name):
            return members[name]
    return platform.processor() or _UNKNOWN


def virtual_machine(cpuinfo: str) -> str:
    """Whether the processor says that there is a hypervisor; only x86 has a flag for that."""
    flags = _members(cpuinfo).get("flags")
    if flags is None:
        return _UNKNOWN
    return "yes" if "hypervisor" in flags.split() else "no"


def preemption(version: str, realtime: str) -> str:
    """The kernel's model of preemption, from `uname -v` and /sys/kernel/realtime."""
    if realtime.strip() == "1" or "PREEMPT_RT" in version:
        return "PREEMPT_RT"
    named = [word for word in version.split() if word.startswith("PREEMPT")]
    return f"{named[0]}, not PREEMPT_RT" if named else "not PREEMPT_RT" if sys.platform == "linux" else _UNKNOWN


def scheduling_policy() -> str:
    """Policy, priority and nice value of this process."""
    if not hasattr(os, "sched_getscheduler"):
        return _UNKNOWN
    number = os.sched_getscheduler(0) & ~getattr(os, "SCHED_RESET_ON_FORK", 0)
    numbers = {getattr(os, name): name for name in _POLICIES if hasattr(os, name)}
    priority = os.sched_getparam(0).sched_priority
    return f"{numbers.get(number, f'policy {number}')}, priority {priority}, nice {os.nice(0)}"


def cpu_affinity() -> str:
    """The CPUs that this process may run on."""
    if not hasattr(os, "sched_getaffinity"):
        return _UNKNOWN
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) == os.cpu_count():
        return "all CPUs"
    return f"CPU{'s' * (len(allowed) != 1)} {', '.join(map(str, allowed))}"


def clock() -> str:
    """The clock that durations are measured with, and its resolution."""
    info = time.get_clock_info("perf_counter")
    return f"{info.implementation}, resolution {info.resolution * 1e9:g} ns"


def _members(cpuinfo: str) -> dict[str, str]:
    """Name → value; of a name that comes for each core, the first value."""
    members: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        members.setdefault(name.strip(), value.strip())
    return members


def _text(path: str) -> str:
    """A small file of the system, or nothing."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
