"""A simulated daemon as a process, for the examples of the documentation."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from lpt_service.protocol.url import Url

STOP_TIMEOUT_S = 10.0


@contextmanager
def running_daemon(*options: str) -> Iterator[Url]:
    """`lptd serve --simulate` on a free port; where it listens. It is stopped at the end, and must exit with 0."""
    command = [sys.executable, "-m", "lpt_service", "serve", "--simulate", "--listen", "lpt://127.0.0.1:0", *options]
    with subprocess.Popen([*command, "--log-level", "error"], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("listening on "), f"lptd said {line!r}"
            yield Url.parse(line.removeprefix("listening on ").strip())
        finally:
            process.terminate()
            try:
                code = process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
    assert code == 0, f"lptd ended with {code}"
