"""A simulated daemon as a process, for the examples of the documentation."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lpt_service.protocol.url import Url

STOP_TIMEOUT_S = 40.0


@contextmanager
def running_daemon(*options: str, config: Path | None = None, line_number: int = 0) -> Iterator[Url]:
    """`lptd serve --simulate` on a free port, or what `config` says; where it listens, by the line that says so.

    It is stopped at the end, and must exit with 0.
    """
    what = ("--simulate", "--listen", "lpt://127.0.0.1:0") if config is None else ("--config", str(config))
    command = [sys.executable, "-m", "lpt_service", "serve", *what, *options]
    with subprocess.Popen([*command, "--log-level", "error"], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = [process.stdout.readline() for _ in range(line_number + 1)][-1]
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
