"""A client that is killed at any moment leaves the port free or handed on, at once, and no trace in `status`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from tests.e2e.client import ALLOCATE, DATA, FREE, RawClient
from tests.e2e.conftest import Connect, Witness
from tests.e2e.daemons import PROJECT, DaemonProcess, eventually

Victim = Callable[[str], subprocess.Popen[str]]


@pytest.fixture
def victim(daemon: DaemonProcess) -> Iterator[Victim]:
    """Starts a client process, and returns when it is in the state asked for."""
    victims: list[subprocess.Popen[str]] = []

    def start(state: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tests.e2e.victim", *map(str, daemon.address), state]
        victims.append(subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True))
        assert victims[-1].stdout is not None
        assert victims[-1].stdout.readline() == "ready\n"
        return victims[-1]

    yield start
    for process in victims:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def names(client: RawClient) -> set[str]:
    """Every client that `status` mentions."""
    report = client.call("status")
    mentioned = [report["owner"] or {"client": ""}, *report["waiters"], *report["registrations"]]
    return {each["client"] for each in mentioned}


@pytest.mark.parametrize("state", ["owning", "in a pulse", "mid-frame", "all at once"])
def test_killed_while_it_owns_with_somebody_waiting(
    connect: Connect, witness: Witness, victim: Victim, state: str
) -> None:
    """The port is handed on; a pulse is ended properly."""
    process = victim(state)
    waiter = connect()
    msgid = waiter.control(ALLOCATE)
    waiter.notification("queued")
    process.kill()
    assert waiter.output(msgid) == b""
    assert f"victim {state}" not in names(waiter)
    if state in ("in a pulse", "all at once"):
        assert waiter.read(DATA) == 0x05
    waiter.close()


@pytest.mark.parametrize("state", ["owning", "in a pulse", "connected", "before hello"])
def test_killed_with_nobody_waiting(connect: Connect, witness: Witness, victim: Victim, state: str) -> None:
    """The port is free, and no trace is left."""
    process = victim(state)
    client = connect()
    process.kill()
    eventually(lambda: bool(client.call("status")["sessions"] == 2))
    report = client.call("status")
    assert (report["owner"], report["waiting"], report["registered"]) == (None, 0, 1)
    assert names(client) == {"", "witness"}


@pytest.mark.parametrize("place", [0, 1, 2])
def test_killed_while_it_waits_first_in_the_middle_or_last(connect: Connect, victim: Victim, place: int) -> None:
    """The others keep their order; their places are told."""
    owner, *waiters = connect(), connect(), connect()
    owner.allocate()
    msgids: list[int] = []
    process = None
    for position in range(3):
        if position == place:
            process = victim("waiting")
        else:
            client = waiters[len(msgids)]
            msgids.append(client.control(ALLOCATE))
            assert client.notification("queued")[1] == position + 1
    assert process is not None
    assert owner.call("status")["waiting"] == 3
    process.kill()
    eventually(lambda: bool(owner.call("status")["waiting"] == 2))
    if place == 0:
        assert waiters[0].notification("queued")[1] == 1
    if place < 2:
        assert waiters[1].notification("queued")[1] == 2
    owner.ioctl(FREE)
    assert waiters[0].output(msgids[0]) == b""
    waiters[0].ioctl(FREE)
    assert waiters[1].output(msgids[1]) == b""
    assert names(owner) == {""}


def test_many_killed_at_once(connect: Connect, witness: Witness, victim: Victim) -> None:
    states = ["owning", "waiting", "connected", "waiting", "before hello"]
    processes = [victim(state) for state in states]
    client = connect()
    msgid = client.control(ALLOCATE)
    client.notification("queued")
    for process in reversed(processes):
        process.kill()
    assert client.output(msgid) == b""
    client.ioctl(FREE)
    eventually(lambda: bool(client.call("status")["sessions"] == 2))
    assert names(client) == {"", "witness"}
