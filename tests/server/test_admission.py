"""Who may come in: what is checked before anything is told, and in which order; nothing of the daemon's state shows."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from lpt_service.protocol.errors import RequestError
from lpt_service.protocol.ioctl import Role
from lpt_service.protocol.status import Status
from lpt_service.server.admission import Admission
from lpt_service.server.daemon import Daemon
from lpt_service.server.hello import Hello, parse_hello
from lpt_service.server.identity import ANONYMOUS, Identity, Origin
from tests.server.fakes import MEMORY, ROOT, Peer, VirtualClock, closing, config, request, start_daemon

SECRET = "correct horse"
TOKEN = {"name": "lab", "sha256": hashlib.sha256(SECRET.encode()).hexdigest()}
OTHER_TOKEN = {"name": "other", "sha256": hashlib.sha256(b"other").hexdigest()}
REMOTE = Origin("10.0.0.9:5", "10.0.0.9", is_private=False)
REMOTE_TLS = Origin("10.0.0.9:6", "10.0.0.9")
USER = Origin("uid 54321 pid 7", "user 54321", Identity(uid=54321))
CERTIFICATE = Origin("10.0.0.9:7", "10.0.0.9", Identity(certificate="rig-2"))


class Untouchable(Mapping[str, Any]):
    """The daemon's ports, of which nothing must be asked yet."""

    def _refuse(self, *arguments: object) -> Any:
        raise AssertionError("somebody unknown has made the daemon look at its ports")

    __getitem__ = __iter__ = __len__ = __contains__ = __bool__ = _refuse
    get = keys = values = items = _refuse


class Ports(dict[str, Any]):
    """Ports of these names."""

    class _Port:
        def __init__(self, name: str) -> None:
            self.name = name

    def __init__(self, *names: str) -> None:
        super().__init__({name: self._Port(name) for name in names})


def hello(**keys: Any) -> Hello:
    return parse_hello(({"protocol": 1, **keys},))


def refusal(admission: Admission, origin: Origin, **keys: Any) -> tuple[str, str]:
    with pytest.raises(RequestError) as caught:
        admission.admit(hello(**keys), origin, admission.rules)
    return caught.value.status_name, caught.value.detail


# Before somebody is known

BAD_TOKEN = ("STATUS_ACCESS_DENIED", "token: missing or wrong")
FOR_LAB = [{"who": ["token:lab"], "role": "use"}]
# What the configuration has, who comes with what, and what that is told.
UNKNOWN: dict[str, tuple[dict[str, Any], Origin, dict[str, Any], tuple[str, str]]] = {
    "no token": ({"token": [TOKEN]}, MEMORY, {}, BAD_TOKEN),
    "an empty token": ({"token": [TOKEN]}, MEMORY, {"token": ""}, BAD_TOKEN),
    "a wrong token": ({"token": [TOKEN]}, MEMORY, {"token": "Correct horse"}, BAD_TOKEN),
    "the hash in place of the token": ({"token": [TOKEN]}, MEMORY, {"token": TOKEN["sha256"]}, BAD_TOKEN),
    "a certificate in place of the token": ({"token": [TOKEN]}, CERTIFICATE, {}, BAD_TOKEN),
    "a user in place of the token": ({"token": [TOKEN]}, USER, {}, BAD_TOKEN),
    "root with a wrong token": ({"token": [TOKEN]}, ROOT, {"token": "x"}, BAD_TOKEN),
    "a wrong token where anybody may": (
        {"token": [TOKEN], "role": [{"who": ["anyone"], "role": "use"}]},
        MEMORY,
        {"token": "x"},
        BAD_TOKEN,
    ),
    "a good token that can be read on the way": (
        {"token": [TOKEN]},
        REMOTE,
        {"token": SECRET},
        ("STATUS_ACCESS_DENIED", "token: not over plain TCP from another machine; use lpts://"),
    ),
    "a wrong token that can be read on the way": (
        {"token": [TOKEN]},
        REMOTE,
        {"token": "x"},
        ("STATUS_ACCESS_DENIED", "token: not over plain TCP from another machine; use lpts://"),
    ),
    "somebody unknown": (
        {"token": [TOKEN], "role": FOR_LAB},
        REMOTE,
        {},
        ("STATUS_ACCESS_DENIED", "role: anonymous has none here"),
    ),
    "somebody known, without a role": (
        {"token": [TOKEN, OTHER_TOKEN], "role": FOR_LAB},
        USER,
        {"token": "other"},
        ("STATUS_ACCESS_DENIED", "role: user:54321+token:other has none here"),
    ),
    "another certificate": (
        {"role": [{"who": ["cert:rig-1"], "role": "use"}]},
        CERTIFICATE,
        {},
        ("STATUS_ACCESS_DENIED", "role: cert:rig-2 has none here"),
    ),
    "another protocol": ({}, MEMORY, {"protocol": 2}, ("STATUS_NOT_SUPPORTED", "protocol: version 2 is not supported")),
}


@pytest.mark.parametrize("case", UNKNOWN)
@pytest.mark.parametrize("port", [None, "LPT1", "NONE"])
def test_somebody_unknown_is_refused_without_a_look_at_the_ports(case: str, port: str | None) -> None:
    sections, origin, keys, told = UNKNOWN[case]
    admission = Admission(config(**sections), Untouchable())
    assert refusal(admission, origin, **keys, **({} if port is None else {"port": port})) == told


async def _busy(nursery: trio.Nursery, **sections: Any) -> Daemon:
    """A daemon with an owner, a waiter and a listener."""
    daemon = await start_daemon(nursery, **sections)
    name = next(iter(daemon.workers))
    owner, waiter = Peer(daemon, origin=ROOT), Peer(daemon, origin=ROOT)
    for peer in (owner, waiter):
        await peer.say_hello(port=name, client="somebody")
    await owner.result(owner.allocate())
    await owner.result(owner.connect_interrupt())
    waiter.allocate()
    await wait_all_tasks_blocked()
    return daemon


def _port(name: str) -> dict[str, Any]:
    return {"name": name, "enable_connect_interrupt": True}


@pytest.mark.parametrize("case", UNKNOWN)
async def test_the_answer_to_somebody_unknown_shows_nothing_of_the_daemon(
    nursery: trio.Nursery, autojump_clock: MockClock, case: str
) -> None:
    """The same bytes, to the last one, whatever ports there are, whoever owns them or has come."""
    sections, origin, keys, _ = UNKNOWN[case]
    daemons = [
        await start_daemon(nursery, port=[_port("LPT1")], **sections),
        await start_daemon(nursery, port=[_port(f"SECRET{number}") for number in range(20)], **sections),
        await _busy(nursery, port=[_port("LPT1")], **sections),
        await _busy(nursery, port=[_port("BENCH"), _port("RIG")], limits={"max_sessions": 2}, **sections),
    ]
    for port in ({}, {"port": "LPT1"}, {"port": "BENCH"}):
        answers = set()
        for daemon in daemons:
            peer = Peer(daemon, origin=origin)
            early = request(1, "status") + request(2, "queue") + request(3, "kick", {"session": 1})
            peer.stream.feed(early + request(4, "hello", {"protocol": 1, "resume": "0" * 32, **port, **keys}))
            await wait_all_tasks_blocked()
            assert peer.stream.is_closed
            answers.add(peer.stream.take())
        (answer,) = answers
        assert b"STATUS_" in answer
        for secret in (b"SECRET", b"BENCH", b"RIG", b"somebody", b"lpt-service"):
            assert secret not in answer


async def test_who_says_nothing_is_told_nothing(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    answers = set()
    for daemon in (await start_daemon(nursery), await _busy(nursery, port=[_port("BENCH"), _port("RIG")])):
        peer = Peer(daemon)
        await trio.sleep(20)
        answers.add(peer.stream.take())
    assert len(answers) == 1


def test_tokens_are_compared_without_an_early_end(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[str] = []

    def compare(digest: str, stored: str) -> bool:
        compared.append(stored)
        return digest == stored

    monkeypatch.setattr("lpt_service.server.admission.hmac.compare_digest", compare)
    admission = Admission(config(token=[TOKEN, OTHER_TOKEN]), Ports("LPT1"))
    for token in (SECRET, "other", "wrong"):
        compared.clear()
        try:
            admission.admit(hello(token=token), MEMORY, admission.rules)
        except RequestError:
            assert token == "wrong"
        assert compared == [TOKEN["sha256"], OTHER_TOKEN["sha256"]]


def test_that_somebody_has_no_role_takes_as_long_to_find_with_one_port_as_with_many() -> None:
    asked: list[int] = []

    def ask(identity: Identity) -> bool:
        asked[-1] += 1
        return False

    for names in (["A"], [f"P{number}" for number in range(60)]):
        ports = [{"name": name} for name in names]
        admission = Admission(config(port=ports, token=[TOKEN], role=FOR_LAB), Untouchable())
        admission.rules.roles._rules = [each._replace(tests=(ask,)) for each in admission.rules.roles._rules]
        asked.append(0)
        refusal(admission, REMOTE)
    assert asked[0] == asked[1]


# Once somebody is known


def test_the_order_is_protocol_then_identity_then_port_then_role() -> None:
    roles = [{"who": ["token:lab"], "role": "use", "ports": ["A"]}]
    admission = Admission(config(port=[{"name": "A"}, {"name": "B"}], token=[TOKEN], role=roles), Ports("A", "B"))
    assert refusal(admission, MEMORY, protocol=3, token="x", port="X")[0] == "STATUS_NOT_SUPPORTED"
    assert refusal(admission, MEMORY, token="x", port="X") == BAD_TOKEN
    name, detail = refusal(admission, MEMORY, token=SECRET, port="X")
    assert (name, detail) == ("STATUS_NO_SUCH_DEVICE", "port: there is no 'X'")
    name, detail = refusal(admission, MEMORY, token=SECRET)
    assert (name, detail) == ("STATUS_NO_SUCH_DEVICE", "port: this daemon has several, name one")
    name, detail = refusal(admission, MEMORY, token=SECRET, port="B")
    assert name == "STATUS_ACCESS_DENIED"
    assert detail == "role: hello needs the role observe on port B, this session has none"
    assert admission.admit(hello(token=SECRET, port="A"), MEMORY, admission.rules).role is Role.USE


def test_a_long_name_of_a_port_is_not_sent_back_whole() -> None:
    admission = Admission(config(), Ports("LPT1"))
    assert len(refusal(admission, MEMORY, port="x" * 1000)[1]) < 80


@pytest.mark.parametrize(
    ("sections", "origin", "keys", "identity", "role"),
    [
        ({}, REMOTE, {}, ANONYMOUS, Role.USE),
        ({}, REMOTE, {"token": "nobody asks for one"}, ANONYMOUS, Role.USE),
        ({"token": [TOKEN]}, MEMORY, {"token": SECRET}, Identity(token="lab"), Role.USE),
        ({"token": [TOKEN]}, REMOTE_TLS, {"token": SECRET}, Identity(token="lab"), Role.USE),
        ({"token": [TOKEN]}, USER, {"token": SECRET}, Identity(uid=54321, token="lab"), Role.USE),
        ({"token": [TOKEN]}, ROOT, {}, Identity(uid=0), Role.ADMIN),
        ({"token": [TOKEN]}, ROOT, {"token": SECRET}, Identity(uid=0, token="lab"), Role.ADMIN),
        ({"role": [{"who": ["cert:*"], "role": "observe"}]}, CERTIFICATE, {}, CERTIFICATE.identity, Role.OBSERVE),
        ({"role": [{"who": ["user:54321"], "role": "admin"}]}, USER, {}, USER.identity, Role.ADMIN),
        ({"role": [{"who": ["anonymous"], "role": "observe"}]}, REMOTE, {}, ANONYMOUS, Role.OBSERVE),
    ],
)
def test_who_is_known_gets_its_role(
    sections: dict[str, Any], origin: Origin, keys: dict[str, Any], identity: Identity, role: Role
) -> None:
    admission = Admission(config(**sections), Ports("LPT1"))
    entry = admission.admit(hello(**keys), origin, admission.rules)
    assert (entry.identity, entry.role, entry.worker.name) == (identity, role, "LPT1")
    assert entry.may_drain is (role is Role.ADMIN)


def test_an_administrator_of_one_port_may_not_drain_all() -> None:
    roles = [{"who": ["user:54321"], "role": "admin", "ports": ["A"]}, {"who": ["anyone"], "role": "use"}]
    admission = Admission(config(port=[{"name": "A"}, {"name": "B"}], role=roles), Ports("A", "B"))
    entry = admission.admit(hello(port="A"), USER, admission.rules)
    assert (entry.role, entry.may_drain) == (Role.ADMIN, False)


# allow_from


@pytest.mark.parametrize(
    ("host", "networks", "is_let_in"),
    [
        ("10.0.0.9", None, True),
        ("10.0.0.9", ("10.0.0.0/8",), True),
        ("10.0.0.9", ("192.168.0.0/16", "10.0.0.9"), True),
        ("11.0.0.9", ("10.0.0.0/8",), False),
        ("10.0.0.9", ("::/0",), False),
        ("fe80::1%eth0", ("fe80::/10",), True),
        ("2001:db8::1", ("0.0.0.0/0", "fe80::/10"), False),
        ("user 0", None, True),
    ],
)
def test_networks(host: str, networks: tuple[str, ...] | None, is_let_in: bool) -> None:
    why_not = Admission(config(), Untouchable()).refuse(Origin(f"{host}:1", host), networks)
    assert why_not == (None if is_let_in else f"connections from {host} are not allowed here")


# Refused in a conversation


async def test_a_refusal_is_noted_with_who_it_was(
    nursery: trio.Nursery, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    daemon = await start_daemon(nursery, token=[TOKEN], role=FOR_LAB)
    noted: list[tuple[Any, ...]] = []
    daemon.audit.refused = lambda why, port=None, **fields: noted.append((why, port, fields))  # type: ignore[method-assign]
    peer = Peer(daemon, origin=USER)
    with caplog.at_level(logging.INFO, "lpt_service"):
        peer.send("hello", {"protocol": 1, "client": "me"})
        assert closing(await peer.messages()).startswith("hello refused: STATUS_ACCESS_DENIED")
    number = peer.session.number
    who = {"session": number, "identity": "user:54321", "peer": "uid 54321 pid 7"}
    assert noted == [("hello: role: user:54321 has none here", None, who)]
    lines = [record.getMessage() for record in caplog.records if record.name == "lpt_service.server.session"]
    assert lines != []
    assert all(line.startswith(f"session {number} (user:54321): ") for line in lines)


async def test_a_secret_is_never_logged(
    nursery: trio.Nursery, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    daemon = await start_daemon(nursery, token=[TOKEN], port=[{"grace_s": 5}])
    peers = [Peer(daemon), Peer(daemon)]
    with caplog.at_level(logging.DEBUG, "lpt_service"):
        secret = (await peers[0].say_hello(token=SECRET, client="me"))["resume"]
        peers[1].send("hello", {"protocol": 1, "token": SECRET + "?"})
        for peer in peers:
            peer.stream.end()
        await wait_all_tasks_blocked()
    assert "session" in caplog.text
    assert SECRET not in caplog.text
    assert secret not in caplog.text


# Counters


def _is_empty(daemon: Daemon) -> bool:
    admission = daemon.admission
    return admission._per_host == Counter() and not admission._before_hello and not daemon.sessions


def _ways(daemon: Daemon) -> Iterator[Peer]:
    """Ways to come, and to go."""
    for origin in (MEMORY, REMOTE, ROOT):
        silent, gone, wrong, good, talker = (Peer(daemon, origin=origin) for _ in range(5))
        gone.stream.end()
        wrong.send("hello", {"protocol": 1, "token": "x"})
        good.send("hello", {"protocol": 1, "token": SECRET})
        good.allocate()
        talker.stream.feed(b"\xc1")
        yield from (silent, gone, wrong, good, talker)
        broken = Peer(daemon, origin=origin)
        broken.stream.break_(ConnectionResetError("reset"))
        yield broken


async def test_who_has_left_counts_no_longer_whichever_way_it_went(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    guarded = await start_daemon(nursery, token=[TOKEN])
    for _ in range(20):
        peers = list(_ways(guarded))
        assert guarded.admission._per_host.total() == len(peers)
        await wait_all_tasks_blocked()
        for peer in peers[::2]:
            peer.stream.end()
        await trio.sleep(15)
        for peer in peers:
            peer.stream.end()
        await wait_all_tasks_blocked()
        assert _is_empty(guarded)


async def test_new_settings_are_for_those_who_come(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    guarded = await start_daemon(nursery, token=[TOKEN])
    settings = config(role=[{"who": ["anyone"], "role": "observe"}], limits={"max_connections": 1})
    old = Peer(guarded)
    await old.say_hello(token=SECRET)
    guarded.admission.reconfigure(settings, Admission(settings, {}).rules.roles)
    new = Peer(guarded)
    await new.say_hello()
    assert await new.status_of(new.allocate()) == "STATUS_ACCESS_DENIED"
    await old.result(old.allocate())
    assert guarded.admission.refuse(MEMORY, None) == "there are as many connections as there may be"


def test_the_status_of_a_refusal_is_the_contract_s() -> None:
    admission = Admission(config(token=[TOKEN]), Untouchable())
    with pytest.raises(RequestError) as caught:
        admission.admit(hello(), MEMORY, admission.rules)
    assert caught.value.status == Status.STATUS_ACCESS_DENIED


def test_one_machine_of_ipv6_is_counted_once() -> None:
    admission = Admission(config(limits={"max_connections_per_address": 2}), {})
    for last in (1, 2):
        origin = Origin("somewhere", f"2001:db8::{last}")
        assert admission.refuse(origin, None) is None
        admission.count(origin.counted_as)
    assert admission.refuse(Origin("somewhere", "2001:db8::3"), None) == (
        "2001:db8::/64 has as many connections as one address may have"
    )
    assert admission.refuse(Origin("somewhere", "2001:db8:0:1::3"), None) is None


async def test_who_came_before_a_reload_is_judged_as_of_then(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """Or somebody who has connected where a token is needed could wait for a reload that needs none elsewhere."""
    guarded = config(token=[{"name": "a", "sha256": hashlib.sha256(b"x").hexdigest()}])
    daemon = Daemon(guarded, reread=config, clock=VirtualClock())
    await nursery.start(daemon.run)
    silent, known = Peer(daemon), Peer(daemon)
    await daemon.reload()
    assert await silent.status_of(silent.send("hello", {"protocol": 1})) == "STATUS_ACCESS_DENIED"
    assert (await known.say_hello(token="x"))["protocol"] == 1
    assert (await Peer(daemon).say_hello())["protocol"] == 1
