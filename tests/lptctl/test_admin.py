"""lptctl revoke, kick, pause, resume: what is asked, what is told, and how it ends."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.lptctl.processes import Lptctl
from tests.lptctl.scripted import scripted_daemon

pytest.importorskip("click")
from lpt_service.protocol.errors import RequestError
from lpt_service.protocol.status import Status

COMMANDS = [("revoke",), ("kick", "7"), ("pause",), ("resume",), ("queue",)]


@pytest.mark.parametrize(
    ("command", "params", "answer", "told"),
    [
        (("revoke",), {}, {"revoked": 7, "grant": 500}, "session 7 has lost LPT1 (grant 500)"),
        (("revoke", "--reason", "late"), {"reason": "late"}, {"revoked": None, "grant": None}, "nobody owns LPT1"),
        (("kick", "7"), {"session": 7}, {"kicked": 7}, "session 7 has ended"),
        (("kick", "0x7", "--reason", "loops"), {"session": 7, "reason": "loops"}, {"kicked": 7}, "session 7 has ended"),
        (("pause",), {}, {"paused": True, "was": False}, "LPT1 is paused; `lptctl resume` lets it go on"),
        (
            ("pause", "--reason", "a cable"),
            {"reason": "a cable"},
            {"paused": True, "was": True},
            "LPT1 is paused already; `lptctl resume` lets it go on",
        ),
        (("resume",), {}, {"paused": False, "was": True}, "LPT1 goes on"),
        (("resume",), {}, {"paused": False, "was": False}, "LPT1 was not paused"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_is_asked_and_told(
    lptctl: Lptctl, command: tuple[str, ...], params: dict[str, Any], answer: dict[str, Any], told: str
) -> None:
    with scripted_daemon(**{command[0]: answer}) as daemon:
        assert lptctl(*command, url=daemon.url) == (0, f"{told}\n", "")
        assert daemon.params(command[0]) == (params,)
        result = lptctl(*command, "--json")
        assert (result.code, json.loads(result.out), result.err) == (0, answer, "")


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_role_that_is_missing_is_1_and_named(lptctl: Lptctl, command: tuple[str, ...]) -> None:
    detail = f"role: {command[0]} needs the role admin on port LPT1, this session has use"
    with scripted_daemon(**{command[0]: RequestError(Status.STATUS_ACCESS_DENIED, detail)}) as daemon:
        result = lptctl.fails(*command, url=daemon.url)
    assert result.code == 1
    assert f"STATUS_ACCESS_DENIED: {detail}; roles stand in the daemon's configuration" in result.err
    assert "LPT_TOKEN" in result.err


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_an_older_daemon_is_1_and_called_older(lptctl: Lptctl, command: tuple[str, ...]) -> None:
    detail = f"method: '{command[0]}' is not known"
    with scripted_daemon(**{command[0]: RequestError(Status.STATUS_INVALID_PARAMETER, detail)}) as daemon:
        result = lptctl.fails(*command, url=daemon.url)
    assert result.code == 1
    assert result.err.endswith(f"{detail}; this daemon is older than lptctl, and cannot do that\n")


def test_a_session_that_is_not_there_is_1(lptctl: Lptctl) -> None:
    refusal = RequestError(Status.STATUS_INVALID_PARAMETER, "session: LPT1 has no session 9")
    with scripted_daemon(kick=refusal) as daemon:
        result = lptctl.fails("kick", "9", url=daemon.url)
    assert result.code == 1
    assert "session: LPT1 has no session 9; `lptctl status` and `lptctl queue` tell" in result.err


@pytest.mark.parametrize("session", ["anna", "-1", "0", str(2**53), ""])
def test_what_is_no_session_is_2(lptctl: Lptctl, session: str) -> None:
    assert lptctl("kick", "--", session).code == 2


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_what_the_daemon_tells_cannot_control_the_terminal(lptctl: Lptctl, command: tuple[str, ...]) -> None:
    evil = "\x1b[31m\u202e[bold]"
    answer = {"revoked": evil, "grant": evil, "kicked": evil, "was": evil, "owner": {"client": evil, "identity": evil}}
    with scripted_daemon(**{command[0]: answer}) as daemon:
        shown = lptctl(*command, url=daemon.url).out + lptctl(*command, "--json").out
    assert all(char.isprintable() or char == "\n" for char in shown)


@pytest.mark.parametrize("command", [("revoke",), ("kick", "7"), ("pause",)])
def test_a_reason_that_no_daemon_takes(lptctl: Lptctl, command: tuple[str, ...]) -> None:
    result = lptctl(*command, "--reason", "x" * 2000)
    assert (result.code, result.err) == (2, "lptctl: --reason has 2,000 bytes in UTF-8, it must have at most 1,024\n")


def test_a_token_that_no_daemon_takes(lptctl: Lptctl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LPT_TOKEN", "x" * 2000)
    result = lptctl("pause")
    assert (result.code, result.err) == (2, "lptctl: LPT_TOKEN has 2,000 bytes in UTF-8, it must have at most 1,024\n")
