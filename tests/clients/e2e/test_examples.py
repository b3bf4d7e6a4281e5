"""The examples do what they say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from lpt_client import blocking

EXAMPLES = Path(__file__).parents[3] / "clients/examples"


def run(name: str, *arguments: str, code: int = 0) -> str:
    process = subprocess.run(
        [sys.executable, EXAMPLES / f"{name}.py", *arguments], capture_output=True, text=True, timeout=30
    )
    assert (process.returncode, process.stderr) == (code, "")
    return process.stdout


def test_trigger_pulse(url: str) -> None:
    match = re.fullmatch(r"D0 was high for (\d+) us\n", run("trigger_pulse", url))
    assert match is not None
    assert int(match[1]) >= 5000


def test_hold_port_blocking(url: str) -> None:
    # D1 → Select; D4 → Busy, which the status register shows inverted.
    assert run("hold_port_blocking", url) == "data 0x12, status 0x10\n"


def test_interrupt_routine(url: str) -> None:
    lines = run("interrupt_routine", url).splitlines()
    assert [line.partition(" interrupt ")[0] for line in lines[:3]] == ["rig 1:"] * 3
    assert lines[3] == "the port is idle; received 3, lost 0"


def test_watch_interrupts(url: str) -> None:
    process = subprocess.Popen(
        [sys.executable, EXAMPLES / "watch_interrupts.py", url, "2"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process, blocking.open_port(url) as port, port.allocated():
        assert process.stdout.readline() == "listening\n"
        for _ in range(2):
            port.pulse(0x08, width_us=1000)
        lines = process.stdout.read().splitlines()
        assert process.wait(30) == 0
    assert re.fullmatch(r"interrupt \d+ at \d+ ns, status 0x[0-9a-f]{2}", lines[0])
    assert lines[2] == "received 2, lost 0"


def test_watch_interrupts_blocking(url: str) -> None:
    # It waits for two seconds, in which a slow machine may not get there; not every time.
    said = (run("watch_interrupts_blocking", url) for _ in range(5))
    assert any(re.fullmatch(r"it came \d+ us after the edge\n", each) for each in said)


def test_try_allocate(url: str) -> None:
    assert run("try_allocate", url) == "done\n"
    with blocking.open_port(url, client="the other") as port, port.allocated():
        assert run("try_allocate", url, code=75) == "busy: the other has it, 0 waiting\n"


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: str(path.stem))
def test_every_example_is_tested_and_short(path: Path) -> None:
    assert f"test_{path.stem}" in globals()
    assert len(path.read_text().splitlines()) <= 45


@pytest.mark.parametrize("arguments", [[], ["lpt://lab-pc/LPT1", "x"]])
@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: str(path.stem))
def test_an_example_with_other_arguments_says_how_it_is_used(path: Path, arguments: list[str]) -> None:
    """As it says itself in its first lines."""
    done = subprocess.run([sys.executable, path, *arguments], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(rf"usage: python3 {path.name} URL( \[NUMBER])?, such as lpt://lab-pc/LPT1( 10)?\n", done.stderr)
    assert f"\n    python3 {path.name} lpt://lab-pc/LPT1{' [NUMBER]' * ('NUMBER' in done.stderr)}\n" in path.read_text()
