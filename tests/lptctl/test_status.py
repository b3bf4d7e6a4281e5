"""lptctl status, once and live."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.lptctl.processes import (
    BOUND_S,
    Lptctl,
    finish,
    read_line,
    read_terminal_until,
    running_daemon,
    started,
)
from tests.lptctl.scripted import scripted_daemon

pytest.importorskip("click")
from lpt_client import blocking


def test_an_idle_port(lptctl: Lptctl, url: str) -> None:
    result = lptctl("status", url=url)
    assert (result.code, result.err) == (0, "")
    lines = dict(line.split(maxsplit=1) for line in result.out.splitlines())
    assert lines["LPT1"].startswith("ready (simulated); lpt-service ")
    assert lines["owner"] == lines["waiting"] == lines["registered"] == "nobody"
    assert "not heard" in lines["interrupts"]
    assert "grants" in lines["counters"]


def test_owner_queue_and_registrations_are_shown(lptctl: Lptctl, url: str) -> None:
    with (
        blocking.open_port(url, client="anna") as anna,
        anna.connect_interrupt(),
        anna.allocated() as grant,
        started("run", "--", "true", url=url) as waiting,
    ):
        assert read_line(waiting.stderr).endswith("place 1")
        shown = lptctl("status", url=url).out
        report = json.loads(lptctl("status", "--json").out)
    assert report["owner"]["client"] == "anna"
    assert report["owner"]["grant"] == grant
    assert [each["position"] for each in report["waiters"]] == [1]
    assert [each["client"] for each in report["registrations"]] == ["anna"]
    assert report["interrupts"]["connected"] is True
    assert f"grant {grant}" in shown
    assert "1. lptctl run true[" in shown
    assert ": interrupts\n" in shown


def test_a_name_cannot_control_the_terminal(lptctl: Lptctl, url: str) -> None:
    name = "\x1b[31mred\x07\n\x9bowner nobody\u202e[bold]\x7f"
    with blocking.open_port(url, client=name) as port, port.allocated():
        shown = lptctl("status", url=url).out
        as_json = lptctl("status", "--json").out
    assert "\\x1b[31mred\\x07\\n\\x9bowner nobody\\u202e[bold]\\x7f (session" in shown
    assert all(char.isprintable() or char == "\n" for char in shown + as_json)
    assert json.loads(as_json)["owner"]["client"] == name


def test_a_name_with_letters_that_the_output_has_not(url: str) -> None:
    with (
        blocking.open_port(url, client="größe 大") as port,
        port.allocated(),
        started("status", url=url, PYTHONIOENCODING="latin-1", PYTHONUTF8="0") as process,
    ):
        result = finish(process)
    assert result.code == 0
    assert "\\u5927 (session" in result.out


def test_watch_is_live_on_a_terminal_and_ends_at_ctrl_c(url: str) -> None:
    terminal, inner = os.openpty()
    with (
        blocking.open_port(url, client="anna[red]") as port,
        started("status", "--watch", "--interval", "0.05", url=url, on_terminal=inner) as process,
    ):
        os.close(inner)
        read_terminal_until(terminal, "nobody")
        with port.allocated():
            read_terminal_until(terminal, "anna[red] (session")
        os.write(terminal, b"\x03")
        rest = read_terminal_until(terminal, "\x1b[?25h")  # the cursor is shown again
        assert process.wait(BOUND_S) == -signal.SIGINT
    os.close(terminal)
    assert "Traceback" not in rest


def test_watch_as_json_is_one_line_each(url: str) -> None:
    with started("status", "--watch", "--json", "--interval", "0.05", url=url) as process:
        reports = [json.loads(read_line(process.stdout)) for _ in range(3)]
        process.send_signal(signal.SIGINT)
        result = finish(process)
    assert (result.code, result.err.strip()) == (-signal.SIGINT, "")
    times = [report["monotonic_ns"] for report in reports]
    assert times == sorted(set(times))


def test_watch_waits_for_a_daemon_that_comes_back(tmp_path: Path) -> None:
    socket_url = f"lpt+unix://{tmp_path}/lptd.sock"
    with (
        running_daemon(listen=socket_url) as daemon,
        started("status", "--watch", "--interval", "0.05", url=daemon.url) as process,
    ):
        assert read_line(process.stdout).startswith("LPT1")
        daemon.kill()
        while not read_line(process.stdout).startswith("not connected: "):
            pass
        with running_daemon(listen=socket_url):
            while not read_line(process.stdout).startswith("LPT1"):
                pass
            process.send_signal(signal.SIGINT)
            assert finish(process).code == -signal.SIGINT


def test_the_report_of_another_version_is_shown_as_far_as_it_is_understood() -> None:
    from lptctl.status_command import render

    assert render({}) == "port        in unknown state; daemon of unknown kind\nowner       nobody\n" + "\n".join(
        ("waiting     nobody", "registered  nobody")
    )


def test_the_report_of_a_port_that_is_not_there_says_why() -> None:
    from lptctl.status_command import render

    report = {"port": "LPT1", "kind": "ppdev", "state": "absent", "why_absent": "/dev/parport0: no such device"}
    assert "LPT1        absent (ppdev): /dev/parport0: no such device; " in render(report)
    hour_ns = 3_600 * 10**9
    shown = render(
        {
            "monotonic_ns": 30 * hour_ns + 10**9,
            "owner": {"client": "", "since_ns": 10**9 // 2},
            "waiting": 3,
            "waiters": [{"client": "ben", "since_ns": 28 * hour_ns}, "nonsense"],
            "registrations": 5,
            "interrupts": {"masked": True, "generated": 9},
        }
    )
    assert "unnamed (session ?) for 1 d 6 h" in shown
    assert "?. ben (session ?) for 2 h 0 min" in shown
    assert "and 2 more" in shown
    assert "masked by the storm guard; generated 9" in shown


def test_a_pause_a_lease_and_identities_are_shown(lptctl: Lptctl) -> None:
    second_ns = 10**9
    who = {"client": "anna", "session": 3, "peer": "uid 1000 pid 41", "identity": "user:anna"}
    report = {
        "port": "LPT1",
        "sessions": 3,
        "away": 1,
        "monotonic_ns": 100 * second_ns,
        "paused": "a cable",
        "lease": {"max_hold_s": 60.0, "idle_hold_s": 0.5, "warning_s": 5.0, "expires_ns": 112 * second_ns},
        "owner": {**who, "grant": 500, "since_ns": 52 * second_ns},
        "waiting": 1,
        "waiters": [{**who, "client": "ben", "identity": "anonymous", "position": 1}],
        "registrations": [{**who, "identity": "uid 1000 pid 41", "interrupt": True}],
    }
    with scripted_daemon(status=report) as daemon:
        result = lptctl("status", url=daemon.url)
    assert result.code == 0
    headline, *lines = result.out.splitlines()
    assert headline.endswith(", sessions 3 (1 away)")
    assert lines == [
        "paused      a cable; nobody is granted the port",
        "owner       anna (session 3, user:anna, uid 1000 pid 41) for 48.0 s, grant 500",
        "lease       at most 60 s while others wait, at most 0.5 s without using the port, warned 5 s before, "
        "the owner loses the port in 12.0 s",
        "waiting     1",
        "            1. ben (session 3, anonymous, uid 1000 pid 41)",
        "registered  1",
        "            anna (session 3, uid 1000 pid 41): interrupts",
    ]


@pytest.mark.parametrize(
    ("report", "lines"),
    [
        ({"paused": "", "lease": None}, ["paused      no reason was given; nobody is granted the port"]),
        ({"paused": None, "lease": {"max_hold_s": 0, "idle_hold_s": 0, "warning_s": 0, "expires_ns": None}}, []),
        ({"lease": {"idle_hold_s": 300}}, ["lease       at most 300 s without using the port"]),
        (
            {"lease": {"max_hold_s": 9, "expires_ns": 1}, "monotonic_ns": 5},
            ["lease       at most 9 s while others wait, the owner loses the port in 0.0 s"],
        ),
        ({"lease": {"max_hold_s": "x", "idle_hold_s": True}}, []),
    ],
)
def test_what_is_off_or_not_known_of_pause_and_lease_is_left_out(report: dict[str, Any], lines: list[str]) -> None:
    from lptctl.status_command import render

    shown = [line for line in render(report).splitlines() if line.startswith(("paused", "lease"))]
    assert shown == lines


def test_start_up_loads_neither_rich_nor_trio(url: str) -> None:
    """A script's loop feels the start of each command."""
    with started("read", url=url, PYTHONPROFILEIMPORTTIME="1") as process:
        result = finish(process)
    assert result.out == "0x00\n"
    assert "click" in result.err
    assert not any(f" {module}\n" in result.err for module in ("rich", "trio", "asyncio", "lpt_client.trio_client"))
