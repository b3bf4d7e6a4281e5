"""The processes of a measurement: each is pinned to a core, waited for until it is ready, and ended by its pid."""

from __future__ import annotations

import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

PROJECT: Final = Path(__file__).resolve().parent.parent.parent
_READY_TIMEOUT_S: Final = 20.0
_END_TIMEOUT_S: Final = 5.0


@contextmanager
def pinned(core: int) -> Iterator[None]:
    """Keep this thread, and what it starts meanwhile, on one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def running(
    command: Sequence[str], core: int, ready: str, pass_fds: Sequence[int] = ()
) -> Iterator[tuple[subprocess.Popen[bytes], re.Match[str]]]:
    """A process on `core` that has printed something that matches `ready`; it is ended at the end."""
    with pinned(core):
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=PROJECT, pass_fds=pass_fds
        )
    try:
        yield process, _await_ready(process, ready)
    finally:
        end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process of ours, by its pid, and wait until it is gone."""
    process.terminate()
    try:
        process.wait(_END_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    assert process.stdout is not None
    process.stdout.close()


def module(name: str, *arguments: str) -> list[str]:
    """The command that runs a module of the harness in this interpreter."""
    return [sys.executable, "-m", f"tests.bench.{name}", *arguments]


def _await_ready(process: subprocess.Popen[bytes], ready: str) -> re.Match[str]:
    assert process.stdout is not None
    text, deadline_s = "", time.monotonic() + _READY_TIMEOUT_S
    poll = select.poll()  # select() knows no descriptor above 1023
    poll.register(process.stdout, select.POLLIN)
    while (match := re.search(ready, text)) is None:
        left_s = deadline_s - time.monotonic()
        if left_s <= 0 or not poll.poll(left_s * 1000):
            raise RuntimeError(f"{process.args!r} was not ready in {_READY_TIMEOUT_S:g} s: {text}")
        chunk = os.read(process.stdout.fileno(), 4096)
        if not chunk:
            raise RuntimeError(f"{process.args!r} has ended: {text}")
        text += chunk.decode(errors="replace")
    return match
