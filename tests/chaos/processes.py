"""What the kernel knows of a process: memory, descriptors, threads."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

MIB = 1024 * 1024


class Usage(NamedTuple):
    """What a process takes."""

    rss_bytes: int
    peak_bytes: int  # the most that it ever took
    descriptors: int
    threads: int


def usage(pid: int) -> Usage:
    """Of a process, now."""
    text = Path(f"/proc/{pid}/status").read_text()
    values = {name: int(value) for name, value in re.findall(r"^(VmRSS|VmHWM|Threads):\s+(\d+)", text, re.MULTILINE)}
    descriptors = len(os.listdir(f"/proc/{pid}/fd"))
    return Usage(values["VmRSS"] * 1024, values["VmHWM"] * 1024, descriptors, values["Threads"])
