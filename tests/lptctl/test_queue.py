"""lptctl queue: everybody who waits, a page at a time."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from tests.lptctl.processes import BOUND_S, Lptctl, finish, read_terminal_until, started
from tests.lptctl.scripted import scripted_daemon

pytest.importorskip("click")

SECOND_NS = 10**9
NOW_NS = 100 * SECOND_NS
OWNER = {"session": 3, "client": "anna", "peer": "uid 1000 pid 41", "identity": "user:anna", "since_ns": 40 * SECOND_NS}


def waiter(position: int, **members: Any) -> dict[str, Any]:
    """One who waits."""
    who = {"session": 10 + position, "client": f"client {position}", "peer": "10.0.0.7:4711", "identity": "anonymous"}
    return {**who, "since_ns": NOW_NS - 5 * SECOND_NS, "position": position, **members}


def test_the_owner_and_who_waits_in_order(lptctl: Lptctl) -> None:
    answer = {"owner": OWNER, "waiting": 2, "waiters": [waiter(1), waiter(2, client="a [bold] one")]}
    with scripted_daemon(queue=answer, ping=[NOW_NS, 0]) as daemon:
        result = lptctl("queue", url=daemon.url)
        assert daemon.params("queue") == ({},)
        as_json = json.loads(lptctl("queue", "--json").out)
    assert (result.code, result.err) == (0, "")
    assert result.out.splitlines() == [
        "place  client        session  identity   from             for",
        "owner  anna          3        user:anna  uid 1000 pid 41  1 min 0 s",
        "1      client 1      11       anonymous  10.0.0.7:4711    5.0 s",
        "2      a [bold] one  12       anonymous  10.0.0.7:4711    5.0 s",
    ]
    assert as_json["waiters"] == answer["waiters"]


def test_a_page_begins_where_it_is_told_and_says_how_to_go_on(lptctl: Lptctl) -> None:
    answer = {"owner": OWNER, "waiting": 7, "waiters": [waiter(3), waiter(4)]}
    with scripted_daemon(queue=answer) as daemon:
        result = lptctl("queue", "--first", "3", url=daemon.url)
        assert daemon.params("queue") == ({"first": 3},)
    assert result.out.splitlines()[-1] == "and 3 more: lptctl queue --first 5"


@pytest.mark.parametrize(
    ("answer", "first", "last_line"),
    [
        ({"owner": None, "waiting": 0, "waiters": []}, "1", "nobody waits"),
        ({"owner": OWNER, "waiting": 0, "waiters": []}, "1", "nobody waits"),
        ({"owner": OWNER, "waiting": 2, "waiters": []}, "3", "nobody waits at place 3 or behind; waiting: 2"),
        ({"owner": OWNER, "waiting": 2, "waiters": [waiter(2)]}, "2", "2      client 2"),
        ({}, "1", "nobody waits"),
    ],
)
def test_an_end_of_the_queue(lptctl: Lptctl, answer: dict[str, Any], first: str, last_line: str) -> None:
    with scripted_daemon(queue=answer) as daemon:
        result = lptctl("queue", "--first", first, url=daemon.url)
    assert result.code == 0
    assert result.out.splitlines()[-1].startswith(last_line)
    assert ("nobody owns the port" in result.out) == (answer.get("owner") is None)


@pytest.mark.parametrize("first", ["0", "-1", "x", str(2**32)])
def test_a_place_that_is_none_is_2(lptctl: Lptctl, first: str) -> None:
    assert lptctl("queue", "--first", first).code == 2


def test_a_line_is_whole_in_a_pipe_and_folded_on_a_terminal() -> None:
    name = "n" * 200
    answer = {"owner": OWNER, "waiting": 1, "waiters": [waiter(1, client=name)]}
    terminal, inner = os.openpty()
    with scripted_daemon(queue=answer) as daemon:
        with started("queue", url=daemon.url) as piped:
            assert name in finish(piped).out
        with started("queue", url=daemon.url, on_terminal=inner) as shown:
            os.close(inner)
            text = read_terminal_until(terminal, "at the end there is no such text")
            assert shown.wait(BOUND_S) == 0
    os.close(terminal)
    assert text.count("n") >= 200
    assert all(len(line) <= 120 for line in text.replace("\x1b[1m", "").replace("\x1b[0m", "").splitlines())
