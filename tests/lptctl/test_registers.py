"""lptctl read, write, pulse."""

from __future__ import annotations

import json
import os

import pytest

from tests.lptctl.processes import BOUND_S, Lptctl, read_terminal_until, started

pytest.importorskip("click")
from lpt_client import blocking


def test_what_is_written_is_read(lptctl: Lptctl, url: str) -> None:
    assert lptctl("write", "data", "0x1f", url=url) == (0, "", "")
    assert lptctl("read") == (0, "0x1f\n", "")
    assert lptctl("read", "data", "--decimal").out == "31\n"
    assert json.loads(lptctl("read", "--json").out) == {"register": "data", "value": 31}


@pytest.mark.parametrize(("written", "value"), [("0b101", 5), ("0XfF", 255), ("17", 17), ("0o17", 15)])
def test_values_may_be_written_in_several_ways(lptctl: Lptctl, url: str, written: str, value: int) -> None:
    assert lptctl("write", "data", written, url=url).code == 0
    assert lptctl("read", "--decimal").out == f"{value}\n"


def test_control_is_written_but_for_the_interrupt_enable(lptctl: Lptctl, url: str) -> None:
    assert lptctl("write", "control", "0x1c", url=url).code == 0
    assert int(lptctl("read", "control").out, 0) & 0x1F == 0x0C
    assert lptctl("read", "status").code == 0


def test_a_pulse_tells_how_long_it_was(lptctl: Lptctl, url: str) -> None:
    result = lptctl("pulse", "0xff", "--width-us", "2000", "--after", "0x0f", "--json", url=url)
    edges = json.loads(result.out)
    assert edges["width_us"] == (edges["second_ns"] - edges["first_ns"]) / 1000 >= 2000
    assert lptctl("read").out == "0x0f\n"
    assert lptctl("pulse", "1", "--width-us", "1").out.endswith(" us\n")
    assert lptctl("read").out == "0x00\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("write", "data", "256"),
        ("write", "data", "ten"),
        ("write", "data", "1.5"),
        ("write", "data", "-1"),
        ("write", "status", "1"),
        ("write", "data"),
        ("write", "data", "1", "--timeout", "nan"),
        ("write", "data", "1", "--timeout", "-1"),
        ("write", "data", "1", "--timeout", "2", "--no-wait"),
        ("read", "address"),
        ("read", "--decimal", "--json"),
        ("pulse", "1"),
        ("pulse", "1", "--width-us", "0"),
        ("pulse", "1", "--width-us", "10000001"),
        ("ping", "--count", "0"),
        ("listen", "--seconds", "inf"),
        ("run",),
        ("run", "-E", "256", "--", "true"),
        ("no-such-command",),
    ],
)
def test_wrong_usage_is_2_and_touches_nothing(lptctl: Lptctl, arguments: tuple[str, ...]) -> None:
    result = lptctl(*arguments, url="lpt://127.0.0.1:1")  # where nobody listens
    assert result.code == 2
    assert "Error: " in result.err
    assert "Traceback" not in result.err


@pytest.mark.parametrize("patience", [("--timeout", "0"), ("--no-wait",), ("--timeout", "0.05")])
@pytest.mark.parametrize("command", [("write", "data", "1"), ("pulse", "1", "--width-us", "1")])
def test_a_port_that_is_not_got_is_4_and_says_who_owns_it(
    lptctl: Lptctl, url: str, command: tuple[str, ...], patience: tuple[str, ...]
) -> None:
    with blocking.open_port(url, client="an\x1bna") as port, port.allocated():
        result = lptctl.fails(*command, *patience, url=url)
    assert result.code == 4
    assert "an\\x1bna (" in result.err
    assert "--timeout" in result.err


def test_whoever_waits_on_a_terminal_sees_the_place(url: str) -> None:
    terminal, inner = os.openpty()
    with blocking.open_port(url) as port:
        with port.allocated(), started("write", "data", "0x33", url=url, on_terminal=inner) as process:
            os.close(inner)
            assert "waiting for LPT1: place 1" in read_terminal_until(terminal, "place 1")
            port.free()
            assert process.wait(BOUND_S) == 0
        assert port.read_data() == 0x33
    os.close(terminal)
