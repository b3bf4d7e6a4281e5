"""The soak of soak.py for a minute; `make soak` does it for thirty."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from tests.chaos import settings
from tests.chaos.soak import soak
from tests.e2e.daemons import PROJECT, eventually
from tests.ended import children, have_ended


@pytest.mark.system
@pytest.mark.timeout(600)
def test_a_minute_of_everything() -> None:
    print(soak(60, settings.seed(settings.LONG)))


@pytest.mark.system
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_soak_that_is_ended_leaves_nobody_behind(number: signal.Signals) -> None:
    """The daemon, the proxy and the hostile ones end with it."""
    environment = {**os.environ, "SOAK_S": "600"}
    command = [sys.executable, "-m", "tests.chaos.soak"]
    with subprocess.Popen(
        command, cwd=PROJECT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            eventually(lambda: len(children(process.pid)) >= 3)
            started = children(process.pid)
            process.send_signal(number)
            process.wait(120)
            eventually(lambda: have_ended(started))
        finally:
            process.kill()
