"""lptctl run when its connection breaks and the daemon keeps the port."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.clients.fake_daemon import GRANT, FakeDaemon, MakeDaemon, keeping
from tests.lptctl.processes import (
    BOUND_S,
    Daemon,
    finish,
    read_line,
    running_daemon,
    started,
    wait_until,
)
from tests.lptctl.relay import Relay, relay_to
from tests.lptctl.scripted import ScriptedDaemon, scripted_daemon
from tests.lptctl.test_run import SLEEPING, WAITS_FOR_A_LINE, is_alive, python

pytest.importorskip("click")
pytest.importorskip("trio")
from lpt_client import blocking
from lpt_service.protocol.structs import U64

ALLOCATE, FREE = "PARALLEL_PORT_ALLOCATE", "PARALLEL_PORT_FREE"
LOST = "lptctl: the connection is lost, 60 s to get it back before LPT1 is lost: "
BACK = "lptctl: the connection is back, nothing of LPT1 was lost"
ENDED = "lptctl: the port was lost, the command is ended: "


@contextmanager
def keeping_daemon(make_daemon: MakeDaemon, **answers: Any) -> Iterator[ScriptedDaemon]:
    with scripted_daemon(**answers) as daemon:
        daemon.make_daemon = make_daemon
        yield daemon


# By a script


def test_the_command_goes_on_when_the_same_grant_is_in_force() -> None:
    with (
        keeping_daemon(keeping(grant=GRANT)) as daemon,
        started("run", *python(WAITS_FOR_A_LINE), url=daemon.url) as process,
    ):
        read_line(process.stdout)
        for connection in (2, 3):
            daemon.drop()
            assert read_line(process.stderr).startswith(LOST)
            assert read_line(process.stderr) == BACK
            daemon.wait_for("hello", connection)
        result = process.communicate("\n")
        daemon.wait_for("bye", 3)
        assert daemon.daemon.names == ["hello", FREE, "bye"]
    assert (process.returncode, *result) == (5, "", "")


@pytest.mark.parametrize(("resumed", "why"), [({}, "while the connection was broken"), ({"grant": GRANT + 1}, "")])
def test_a_port_that_another_grant_has_is_lost(resumed: dict[str, Any], why: str) -> None:
    with keeping_daemon(keeping(**resumed)) as daemon, started("run", *SLEEPING, url=daemon.url) as process:
        command = int(read_line(process.stdout))
        daemon.drop()
        code, _, err = finish(process)
    assert code == 3
    lost, ended = err.splitlines()
    assert lost.startswith(LOST)
    assert ended.startswith(ENDED + why)
    assert not is_alive(command)


def test_a_daemon_that_begins_anew_has_lost_it() -> None:
    def make(number: int) -> FakeDaemon:
        daemon = FakeDaemon(session=number)
        daemon.resume = "0" * 32
        return daemon

    with keeping_daemon(make) as daemon, started("run", *SLEEPING, url=daemon.url) as process:
        read_line(process.stdout)
        daemon.drop()
        code, _, err = finish(process)
        assert ALLOCATE not in daemon.daemon.names
    assert code == 3
    assert err.splitlines()[1].startswith(ENDED)
    assert err.count("\n") == 2


@pytest.mark.parametrize("on_lost", ["kill", "ignore"])
def test_the_time_to_come_back_is_bounded(on_lost: str) -> None:
    def make(number: int) -> FakeDaemon:
        daemon = FakeDaemon()
        daemon.resume = "0" * 32
        limits = {"limits": {"grace_s": 1.0, "dead_peer_s": 0.5}}
        daemon.answers["hello"] = None if number > 1 else lambda _request: daemon.hello() | limits
        return daemon

    command = ("--on-lost", on_lost, "--kill-after", "60", *python(WAITS_FOR_A_LINE))
    with (
        keeping_daemon(make) as daemon,
        started("run", *command, url=daemon.url) as process,
    ):
        read_line(process.stdout)
        daemon.drop()
        assert "is lost, 1.5 s to get it back before LPT1 is lost: " in read_line(process.stderr)
        assert read_line(process.stderr).startswith("lptctl: the port was lost, ")
        out, err = process.communicate("\n")
    assert (process.returncode, out, err) == (5 if on_lost == "ignore" else 3, "", "")


def test_without_grace_the_command_ends_at_once() -> None:
    with scripted_daemon() as daemon, started("run", *SLEEPING, url=daemon.url) as process:
        read_line(process.stdout)
        daemon.drop()
        code, _, err = finish(process)
    assert code == 3
    assert err.startswith(ENDED)
    assert err.count("\n") == 1


def test_the_place_in_the_queue_is_kept() -> None:
    pending: list[int] = []
    with (
        keeping_daemon(keeping(position=2, pending=lambda: pending), PARALLEL_PORT_ALLOCATE=None) as daemon,
        started("run", "--", "true", url=daemon.url) as process,
    ):
        daemon.wait_for(ALLOCATE)
        pending.append(daemon.daemon.request(ALLOCATE).msgid)
        daemon.drop()
        assert read_line(process.stderr).startswith(LOST)
        told = {read_line(process.stderr) for _ in range(2)}
        assert told == {BACK, "lptctl: waiting for LPT1: place 2"}
        assert ALLOCATE not in daemon.daemon.names
        daemon.answer_former(pending[0], U64.pack(GRANT))
        assert finish(process) == (0, "", "")


def test_a_signal_ends_the_waiting_while_the_connection_is_lost() -> None:
    def make(number: int) -> FakeDaemon:
        daemon = keeping()(number)
        if number > 1:
            daemon.answers["hello"] = None
        return daemon

    with (
        keeping_daemon(make, PARALLEL_PORT_ALLOCATE=None) as daemon,
        started("run", "--", "true", url=daemon.url) as process,
    ):
        daemon.wait_for(ALLOCATE)
        daemon.drop()
        read_line(process.stderr)
        process.terminate()
        assert finish(process).code == -signal.SIGTERM


# With a daemon


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A port with a time of grace, on TCP and a Unix socket, and a state directory."""
    path = tmp_path / "config.toml"
    state = tmp_path / "state"
    state.mkdir()
    listeners = f'["lpt://127.0.0.1:0", "lpt+unix://{tmp_path}/lptd.sock"]'
    server = f'[server]\nlisten = {listeners}\nstate_directory = "{state}"\n'
    path.write_text(f"{server}[[port]]\ngrace_s = 30.0\nenable_connect_interrupt = true\n", encoding="utf-8")
    return path


@pytest.fixture
def daemon(config: Path) -> Iterator[Daemon]:
    with running_daemon("--config", str(config)) as daemon:
        yield daemon


@pytest.fixture
def relay(daemon: Daemon) -> Iterator[Relay]:
    with relay_to(daemon.url) as relay:
        yield relay


def test_a_cut_connection_costs_nothing(daemon: Daemon, relay: Relay) -> None:
    with (
        blocking.open_port(daemon.url) as port,
        started("run", *python(WAITS_FOR_A_LINE), url=relay.url) as process,
    ):
        read_line(process.stdout)
        owner = port.status()["owner"]
        for _ in range(3):
            relay.cut()
            assert "the connection is lost, 45 s to get it back before LPT1 is lost: " in read_line(process.stderr)
            assert read_line(process.stderr) == BACK
        assert port.try_allocate() is None
        now = port.status()["owner"]
        assert (now["session"], now["grant"]) == (owner["session"], owner["grant"])
        result = process.communicate("\n")
        assert (process.returncode, *result) == (5, "", "")
        status = port.status()
        assert status["owner"] is None
        assert status["counters"]["forced_releases"] == 0


def test_a_port_that_is_revoked_while_the_connection_is_cut(daemon: Daemon, relay: Relay, config: Path) -> None:
    administration = f"lpt+unix://{config.parent}/lptd.sock#LPT1"
    patient = "import lptctl.holding; lptctl.holding._REASON_WITHIN_S = 60.0"
    with (
        blocking.open_port(administration) as port,
        started("run", *SLEEPING, url=relay.url, setting=patient) as process,
    ):
        command = int(read_line(process.stdout))
        relay.refuses = True
        relay.cut()
        read_line(process.stderr)
        wait_until(lambda: bool(port.status()["away"] == 1))  # from then on, what is told waits for who comes back
        assert port.revoke("gone home")["revoked"] is not None
        relay.refuses = False
        code, _, err = finish(process)
    assert (code, err) == (3, ENDED + "administrator: gone home\n")
    assert not is_alive(command)


def test_a_command_that_ends_while_the_connection_is_cut(daemon: Daemon, relay: Relay) -> None:
    """The port cannot be given back then: that is said, and the daemon does it when the time of grace is over."""
    with (
        blocking.open_port(daemon.url) as port,
        started("run", *python(WAITS_FOR_A_LINE), url=relay.url) as process,
    ):
        read_line(process.stdout)
        relay.refuses = True
        relay.cut()
        read_line(process.stderr)
        out, err = process.communicate("\n", timeout=BOUND_S)
        assert (process.returncode, out) == (5, "")
        assert err.startswith("lptctl: the port was lost as the command ended: ")
        assert port.status()["owner"] is not None


def test_the_place_in_the_queue_outlasts_a_cut(daemon: Daemon, relay: Relay) -> None:
    with (
        blocking.open_port(daemon.url) as port,
        port.allocated(),
        started("run", "--", "echo", "ran", url=relay.url) as process,
    ):
        place = read_line(process.stderr)
        assert place.endswith("place 1")
        relay.cut()
        lost, *told = (read_line(process.stderr) for _ in range(3))
        assert lost.startswith("lptctl: the connection is lost, ")
        assert set(told) == {BACK, place}
        port.free()
        assert finish(process) == (0, "ran\n", "")


def test_the_command_goes_on_through_a_restart_of_the_daemon(config: Path) -> None:
    url = f"lpt+unix://{config.parent}/lptd.sock#LPT1"
    with (
        running_daemon("--config", str(config)) as first,
        started("run", *python(WAITS_FOR_A_LINE), url=url) as process,
    ):
        read_line(process.stdout)
        first.process.terminate()
        assert first.process.wait(BOUND_S) == 0
        assert "the connection is lost" in read_line(process.stderr)
        with running_daemon("--config", str(config)), blocking.open_port(url) as port:
            assert read_line(process.stderr) == BACK
            assert port.status()["owner"] is not None
            result = process.communicate("\n")
            assert (process.returncode, *result) == (5, "", "")
            wait_until(lambda: port.status()["owner"] is None)
