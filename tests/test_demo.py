"""`lptd demo`: it shows the main job, and its exit code tells whether the accounts hold."""

import re
import subprocess
import sys
from typing import Any, cast

import pytest
import trio

from lpt_service import demo


class _Ended:
    """A process that has ended."""

    def __init__(self, returncode: int) -> None:
        self.returncode = returncode


def _conclude(daemon_exit_code: int, **changes: Any) -> int:
    show = demo._Demo(is_live=False)
    values: dict[str, Any] = {"first_seq": 3, "next_seq": 10, "received": 5, "lost": 2, "is_closed": True, **changes}
    show._accounts = {"anna": demo.Account("anna", cast(trio.Process, _Ended(0)), **values)}
    return show._conclude(cast(trio.Process, _Ended(daemon_exit_code)))


def test_exit_code_is_0_when_every_account_adds_up(capsys: pytest.CaptureFixture[str]) -> None:
    assert _conclude(0) == 0
    assert re.search(r"anna +7 +5 +2 +generated = received \+ lost\n", capsys.readouterr().out)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"received": 4}, id="one is missing"),
        pytest.param({"received": 6}, id="one too many"),
        pytest.param({"is_closed": False}, id="a client that lived did not report to the end"),
        pytest.param({"next_seq": 3, "received": 0, "lost": 0}, id="nothing was heard"),
    ],
)
def test_exit_code_is_1_when_an_account_does_not(changes: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert _conclude(0, **changes) == 1
    assert "DOES NOT ADD UP" in capsys.readouterr().out


def test_exit_code_is_1_when_the_daemon_failed() -> None:
    assert _conclude(1) == 1


@pytest.mark.system
def test_demo_shows_the_main_job() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lpt_service", "demo", "--plain"],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    killed = re.search(r"(\w+) +is killed while it owns the port", done.stdout)
    assert killed is not None
    after = done.stdout[killed.end() :]
    assert re.search(r"owns the port, grant \d+", after), "nobody took over"
    assert re.search(r"waits at place 1", done.stdout)
    assert re.search(r"is told that the port is idle", done.stdout)
    assert len(re.findall(r"generated = received \+ lost", after)) == len(demo.NAMES)
    assert f"{killed[1]} " in after, "the one that was killed has its line in the table"
