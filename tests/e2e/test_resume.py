"""Clients whose connection breaks, and that come back: to the same daemon, and to the next one after a restart."""

from __future__ import annotations

import json
import re
import signal
import ssl
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.certificates import client_context, section
from tests.e2e.client import (
    ALLOCATE,
    DATA,
    DISCONNECT_INTERRUPT,
    FREE,
    PULSE,
    STOPPED,
    Account,
    RawClient,
    interrupts,
    pulse,
    routine,
    u64,
)
from tests.e2e.daemons import STOP_TIMEOUT_S, DaemonProcess, eventually, serving

SCHEMES = ("tcp", "unix", "tls")


class Site:
    """Where daemons run, one after the other, with one state directory; clients reach them in one way."""

    def __init__(self, scheme: str, folder: Path, certificates: Path, stack: ExitStack) -> None:
        self.state = folder / "state"
        self.state.mkdir()
        self.saved = self.state / "sessions.json"
        self.daemon: DaemonProcess
        self._scheme = scheme
        self._config = folder / "lptd.toml"
        self._stack = stack
        self._context: ssl.SSLContext | None = None
        self._tls = ""
        if scheme == "unix":
            sockets = stack.enter_context(tempfile.TemporaryDirectory())  # with a short name
            self._url = f"lpt+unix://{sockets}/s"
        elif scheme == "tls":
            self._url = "lpts://127.0.0.1:0"
            self._context = client_context(certificates)
            keys = "\n".join(f"{name} = {json.dumps(value)}" for name, value in section(certificates).items())
            self._tls = f"[tls]\n{keys}\n"
        else:
            self._url = "lpt://127.0.0.1:0"

    def start(self, *, grace_s: float = 300, **port: Any) -> DaemonProcess:
        """Start a daemon; the one before it has ended."""
        keys = {"enable_connect_interrupt": True, "safe_data": 0x5A, "grace_s": grace_s, **port}
        lines = "\n".join(f"{name} = {json.dumps(value)}" for name, value in keys.items())
        self._config.write_text(
            f'[server]\nlisten = ["{self._url}", "lpt://127.0.0.1:0"]\nstate_directory = "{self.state}"\n'
            f"{self._tls}[[port]]\n{lines}\n"
        )
        self.daemon = self._stack.enter_context(serving("--config", str(self._config), lines=2))
        return self.daemon

    def connect(self, **keys: Any) -> RawClient:
        """A client that has said hello."""
        client = RawClient(self.daemon.address)
        if self._context is not None:
            client.socket = self._context.wrap_socket(client.socket, server_hostname="localhost")
        self._stack.callback(client.close)
        return client.hello(**keys)

    def back(self, lost: RawClient, **keys: Any) -> RawClient:
        """The client of a connection that is lost; its numbers of requests go on."""
        client = RawClient(self.daemon.address)
        if self._context is not None:
            client.socket = self._context.wrap_socket(client.socket, server_hostname="localhost")
        self._stack.callback(client.close)
        client._msgids = lost._msgids
        return client.hello(resume=lost.welcome["resume"], **keys)

    def status(self) -> dict[str, Any]:
        """What somebody is told who comes and goes by TCP."""
        client = RawClient(self.daemon.addresses[1]).hello()
        report: dict[str, Any] = client.call("status")
        client.close()
        return report

    def lose(self, *clients: RawClient) -> None:
        """Their connections break; wait until the daemon knows. Each holds something that is kept."""
        before = self.status()["away"]
        for client in clients:
            client.close()
        eventually(lambda: bool(self.status()["away"] == before + len(clients)))

    def restart(self, **port: Any) -> None:
        assert self.daemon.stop() == 0
        self.start(**port)


@pytest.fixture(params=SCHEMES)
def site(request: pytest.FixtureRequest, tmp_path: Path, certificates: Path) -> Iterator[Site]:
    with ExitStack() as stack:
        yield Site(request.param, tmp_path, certificates, stack)


only_tcp = pytest.mark.parametrize("site", ["tcp"], indirect=True)


def scene(site: Site) -> tuple[RawClient, RawClient, RawClient, int, int]:
    """An owner, one who waits, one who listens; the grant and the request that waits."""
    owner, waiter, listener = (site.connect(client=name) for name in ("owner", "waiter", "listener"))
    grant = owner.allocate()
    waits = waiter.control(ALLOCATE, b"", 8)
    waiter.notification("queued")
    listener.connect_interrupt(isr=5, deferred=6)
    return owner, waiter, listener, grant, waits


def check_scene(site: Site, lost: tuple[RawClient, RawClient, RawClient, int, int]) -> None:
    """They come back, and have everything."""
    *clients, grant, waits = lost
    owner, waiter, listener = (site.back(client) for client in clients)
    assert [each.welcome["session"] for each in (owner, waiter, listener)] == [
        each.welcome["session"] for each in clients
    ]
    nothing: dict[str, Any] = {"grant": None, "position": None, "pending": [], "registrations": []}
    assert owner.welcome["resumed"] == {**nothing, "grant": grant}
    assert waiter.welcome["resumed"] == {**nothing, "position": 1, "pending": [waits]}
    assert listener.welcome["resumed"] == {**nothing, "registrations": [routine(5, 6)]}
    owner.raise_interrupts()
    while not listener.notification("interrupt")[2]:
        pass  # a mark
    owner.ioctl(FREE)
    assert u64(waiter.output(waits)) > grant
    waiter.ioctl(FREE)
    assert listener.notification("port_check") == [6, 0]


# One daemon


def test_everything_is_kept_while_connections_are_broken(site: Site) -> None:
    site.start()
    lost = scene(site)
    site.lose(*lost[:3])
    assert site.status()["owner"]["session"] == lost[0].welcome["session"]
    check_scene(site, lost)


def test_everything_moves_from_connections_that_are_still_there(site: Site) -> None:
    """Theirs is half open: the daemon does not know yet. Each is told, and then its stream ends."""
    site.start()
    old = scene(site)
    check_scene(site, old)
    for client in old[:3]:
        messages = client.rest()
        assert messages[-1][1] == "closing"
        assert messages[-1][2][0].startswith("resumed on another connection")


@only_tcp
def test_a_connection_that_is_reset_is_as_good_as_one_that_ends(site: Site) -> None:
    site.start()
    client = site.connect()
    grant = client.allocate()
    client.reset()
    eventually(lambda: "kept for 300 s" in site.daemon.log())
    assert site.back(client).welcome["resumed"]["grant"] == grant


@only_tcp
def test_the_lines_are_made_safe_and_handed_on_when_nobody_comes_back(site: Site) -> None:
    site.start(grace_s=0.5)
    owner, waiter, *_, waits = scene(site)
    owner.write(DATA, 0xFF)
    began = time.monotonic()
    owner.close()
    waiter.output(waits)
    assert time.monotonic() - began > 0.45
    assert waiter.read(DATA) == 0x5A
    assert "resumed" not in site.back(owner).welcome


@only_tcp
def test_who_says_goodbye_is_released_at_once(site: Site) -> None:
    site.start()
    owner, waiter, *_, waits = scene(site)
    owner.send([2, "bye", []])
    owner.close()
    waiter.output(waits)
    assert "resumed" not in site.back(owner).welcome


@only_tcp
def test_a_client_that_breaks_the_rules_is_released_at_once(site: Site) -> None:
    site.start()
    owner, waiter, *_, waits = scene(site)
    owner.socket.sendall(b"\xc1")
    waiter.output(waits)
    assert "resumed" not in site.back(owner).welcome


@pytest.mark.parametrize("site", ["unix"], indirect=True)
def test_a_secret_is_no_good_to_somebody_else(site: Site) -> None:
    """Who comes by TCP is nobody, and not the user who came by the Unix socket; and does not use the secret up."""
    daemon = site.start()
    owner = site.connect()
    grant = owner.allocate()
    site.lose(owner)
    stranger = RawClient(daemon.addresses[1]).hello(resume=owner.welcome["resume"])
    assert "resumed" not in stranger.welcome
    stranger.close()
    assert site.back(owner).welcome["resumed"]["grant"] == grant
    assert "resumed" not in site.back(owner).welcome, "but one use is all"


@only_tcp
def test_a_pulse_ends_properly_while_its_owner_is_away(site: Site) -> None:
    site.start()
    owner, witness = site.connect(), site.connect()
    owner.allocate()
    for width_us in (500_000, 2_000_000, 10_000_000):  # until it is long enough for what is done in it
        owner.control(PULSE, pulse(0x11, 0x22, width_us), 16)
        owner.heard()
        site.lose(owner)
        before = witness.read(DATA)
        eventually(lambda: witness.read(DATA) == 0x22)
        owner = site.back(owner)
        assert owner.welcome["resumed"]["pending"] == []
        if before == 0x11:
            break
    assert before == 0x11


# Interrupts


class Ear:
    """A listener across connections, told by number where it is."""

    def __init__(self, first_seq: int) -> None:
        self.account = Account()
        self._first_seq = first_seq

    @property
    def next_seq(self) -> int:
        return self._first_seq + self.account.received + self.account.lost

    def read(self, client: RawClient, count: int) -> None:
        for _ in range(count):
            self.account.add([client.receive()])


def next_seq(site: Site) -> int:
    return int(site.status()["interrupts"]["next_seq"])


def wait_for_seq(site: Site, seq: int) -> None:
    """Until the log has come so far."""
    eventually(lambda: next_seq(site) >= seq)


def wait_for_entries(site: Site, count: int) -> None:
    """Until the log has so many entries more: a busy daemon makes one of several interrupts."""
    ends = {next_seq(site)}

    def is_enough() -> bool:
        ends.add(next_seq(site))
        return len(ends) > count

    eventually(is_enough)


@pytest.mark.parametrize("ring", [65536, 16], ids=["kept", "overtaken"])
def test_received_and_lost_are_all_that_was_generated(site: Site, ring: int) -> None:
    """Its connection is lost again and again, with much that is not read, in the midst of frames."""
    site.start(pulse_hz=2000, interrupt_log_frames=ring)
    client = site.connect()
    ear = Ear(client.connect_interrupt())
    stream = client.welcome["stream"]
    ear.account.add(client.unread)
    for turn in range(6):
        ear.read(client, 50)
        if turn % 2:
            site.lose(client)
            wait_for_entries(site, 20)  # more than the small ring holds
        client = site.back(client, **{"from": [stream, ear.next_seq]})
        assert client.welcome["resumed"]["registrations"]
    ear.read(client, 50)
    end_msgid = client.control(DISCONNECT_INTERRUPT, routine(1), 8)
    end_seq = u64(client.output(end_msgid))
    ear.account.add(client.unread)
    assert ear.next_seq == end_seq
    assert (ear.account.lost > 0) == (ring == 16)


def test_what_a_disconnect_was_answered_is_told_again(site: Site) -> None:
    """Five interrupts and the answer lay unread in the kernel when the connection broke."""
    site.start()
    owner, client = site.connect(), site.connect()
    owner.allocate()
    first = client.connect_interrupt()
    client.notification("interrupt_sync")
    for count in range(1, 6):
        owner.raise_interrupts()
        wait_for_seq(site, first + count)
    msgid = client.control(DISCONNECT_INTERRUPT, routine(1), 8)
    eventually(lambda: site.status()["registered"] == 0)
    site.lose(client)
    again = site.back(client, **{"from": [client.welcome["stream"], first]})
    assert again.welcome["resumed"] == {"grant": None, "position": None, "pending": [msgid], "registrations": []}
    assert u64(again.output(msgid)) == first + 5
    sync, *heard = again.unread
    assert sync == [2, "interrupt_sync", ["resumed", first, 0]]
    assert [message[0] for message in interrupts(heard)] == list(range(first, first + 5))


def test_who_does_not_say_where_it_is_misses_nothing_either(site: Site) -> None:
    """What was on its way, and what lay in the kernel for it, comes again."""
    site.start()
    owner, client = site.connect(), site.connect()
    owner.allocate()
    first = client.connect_interrupt()
    client.unread.clear()
    for count in range(1, 41):
        owner.raise_interrupts()
        wait_for_seq(site, first + count)
    heard = {client.notification("interrupt")[0] for _ in range(3)}
    site.lose(client)
    again = site.back(client)
    assert again.notification("interrupt_sync")[0] == "resumed"
    again.call("ping")
    heard |= {message[0] for message in interrupts(again.heard())}
    assert heard == set(range(first, first + 40))


def test_no_torn_frame_on_either_connection(site: Site) -> None:
    """The old one is full to the last byte when the new one comes."""
    site.start(pulse_hz=20_000)
    client = site.connect()
    first = client.connect_interrupt()
    wait_for_seq(site, first + 20_000)
    again = site.back(client, **{"from": [client.welcome["stream"], first]})
    old = Account().add(client.rest())
    assert old.lost == 0
    new = Account()
    while new.received < old.received:
        new.add([again.receive()])


# Restarts


@pytest.mark.parametrize("is_lost_before", [True, False])
def test_everything_outlives_an_orderly_restart(site: Site, is_lost_before: bool) -> None:
    site.start()
    lost = scene(site)
    if is_lost_before:
        site.lose(*lost[:3])
    site.restart()
    assert not site.saved.exists()
    assert site.status()["waiting"] == 1
    assert all(site.connect().welcome["session"] > each.welcome["session"] for each in lost[:3])
    check_scene(site, lost)


@only_tcp
def test_the_stop_tells_everybody_and_cancels_nothing_that_goes_on(site: Site) -> None:
    daemon = site.start()
    owner, waiter, listener, *_ = scene(site)
    owner.raise_interrupts(2)
    daemon.signal(signal.SIGTERM)
    heard = {client: client.rest() for client in (owner, waiter, listener)}
    assert daemon.process.wait(STOP_TIMEOUT_S) == 0
    for client, messages in heard.items():
        assert messages[-1] == [2, "closing", ["the daemon is stopping"]]
        assert [message for message in messages if message[0] == 1] == [], client.welcome
    account = Account().add(heard[listener])
    assert (account.received, account.kinds[-1]) == (2, STOPPED)


@only_tcp
def test_listeners_are_told_of_the_restart(site: Site) -> None:
    site.start()
    client = site.connect()
    seq = client.connect_interrupt()
    site.restart()
    again = site.back(client, **{"from": [client.welcome["stream"], seq]})
    assert again.welcome["stream"] != client.welcome["stream"]
    assert again.notification("interrupt_sync") == ["restarted", 0, None]
    owner = site.connect()
    owner.allocate()
    owner.raise_interrupts()
    marks_and_one = [again.notification("interrupt") for _ in range(2)]
    assert [(seq, count) for seq, _, count, *_ in marks_and_one] == [(0, 0), (0, 1)]


@only_tcp
def test_what_a_restart_leaves_is_in_no_other_file_and_no_log(site: Site) -> None:
    daemon = site.start()
    *clients, _, _ = scene(site)
    secrets = [client.welcome["resume"] for client in clients]
    assert daemon.stop() == 0
    assert stat.S_IMODE(site.saved.stat().st_mode) == 0o600
    texts = [path.read_text() for path in site.state.iterdir()] + [daemon.log()]
    assert not any(secret in text for secret in secrets for text in texts)


@only_tcp
def test_nothing_outlives_a_crash(site: Site) -> None:
    daemon = site.start()
    owner, _, listener, *_ = scene(site)
    daemon.process.kill()
    daemon.process.wait()
    site.start()
    assert site.status()["owner"] is None
    for client in (owner, listener):
        assert "resumed" not in site.back(client).welcome


@only_tcp
def test_a_crash_after_a_restart_finds_no_old_file(site: Site) -> None:
    site.start()
    lost = scene(site)
    site.restart()
    site.daemon.process.kill()
    site.daemon.process.wait()
    site.start()
    assert site.status()["owner"] is None
    assert "resumed" not in site.back(lost[0]).welcome


@only_tcp
def test_a_damaged_file_is_told_of_and_ignored(site: Site) -> None:
    daemon = site.start()
    lost = scene(site)
    assert daemon.stop() == 0
    site.saved.write_bytes(site.saved.read_bytes()[:-20])
    site.start()
    assert "sessions begin anew" in site.daemon.log()
    assert site.status()["owner"] is None
    assert "resumed" not in site.back(lost[0]).welcome


@only_tcp
def test_grace_runs_anew_after_a_restart_and_then_ends(site: Site) -> None:
    site.start()
    *lost, _, _ = scene(site)
    site.restart(grace_s=1)
    eventually(lambda: site.status()["sessions"] == 1)
    assert site.status()["owner"] is None
    for client in lost:
        number = client.welcome["session"]
        assert re.search(rf"session {number} \(.*\): nobody came back within 1 s: what it held", site.daemon.log())
