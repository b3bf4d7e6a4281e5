"""Who is at the other end: what sockets, certificates and tokens tell, and how it is called."""

from __future__ import annotations

import os
import socket
import struct

import pytest

from lpt_service.server import identity as module
from lpt_service.server.identity import ANONYMOUS, Identity, Origin, readable, remember_user


def test_a_tcp_peer_is_called_by_its_address() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as client,
        listener.accept()[0] as sock,
    ):
        assert Origin.of(sock).peer == f"127.0.0.1:{client.getsockname()[1]}"


def test_an_ipv6_peer_is_bracketed() -> None:
    try:
        listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("no IPv6 here")
    with listener, socket.create_connection(listener.getsockname()[:2]) as client, listener.accept()[0] as sock:
        assert Origin.of(sock).peer == f"[::1]:{client.getsockname()[1]}"


def test_a_unix_peer_is_called_by_its_user_and_process() -> None:
    here, there = socket.socketpair()
    with here, there:
        origin = Origin.of(here)
    assert origin.peer == f"uid {os.getuid()} pid {os.getpid()}"
    assert origin.host == f"user {os.getuid()}"
    assert origin.is_private
    assert origin.identity.uid == os.getuid()
    assert origin.identity.gids >= {os.getgid(), *os.getgroups()}


def test_an_ipv4_peer_of_a_socket_for_both_is_called_by_its_ipv4_address() -> None:
    try:
        listener = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    except (OSError, ValueError):
        pytest.skip("no IPv6 here")
    port = listener.getsockname()[1]
    with listener, socket.create_connection(("127.0.0.1", port)) as client, listener.accept()[0] as sock:
        origin = Origin.of(sock)
        assert origin.peer == f"127.0.0.1:{client.getsockname()[1]}"
    assert (origin.host, origin.is_private) == ("127.0.0.1", True)


class AcceptedFrom:
    """A socket whose other end is elsewhere."""

    family = socket.AF_INET

    def __init__(self, host: str) -> None:
        self._host = host

    def getpeername(self) -> tuple[str, int]:
        return self._host, 4711


@pytest.mark.parametrize(
    ("host", "is_private"), [("127.0.0.1", True), ("127.8.9.1", True), ("10.0.0.1", False), ("192.168.1.9", False)]
)
def test_what_is_said_over_plain_tcp_is_private_within_this_machine_only(host: str, is_private: bool) -> None:
    origin = Origin.of(AcceptedFrom(host))  # type: ignore[arg-type]
    assert (origin.host, origin.is_private) == (host, is_private)
    assert origin.identity.is_anonymous


class AcceptedFromUser:
    """A Unix socket whose other end is this user's, as the kernel tells it."""

    family = socket.AF_UNIX

    def __init__(self, uid: int, gid: int, groups: bytes | None) -> None:
        self._credentials = struct.pack("iII", 7, uid, gid)
        self._groups = groups

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        assert size <= 1024, "more is refused by Python"
        if option == socket.SO_PEERCRED:
            return self._credentials
        if self._groups is None:
            raise OSError("more than fit")
        return self._groups


@pytest.mark.parametrize("uid", [1000, 2**31 + 5, 2**32 - 2])
def test_large_numbers_of_users_and_groups_are_numbers_all_the_same(uid: int) -> None:
    origin = Origin.of(AcceptedFromUser(uid, uid, struct.pack("2I", 5, uid)))  # type: ignore[arg-type]
    assert origin == Origin(f"uid {uid} pid 7", f"user {uid}", Identity(uid=uid, gids=frozenset({5, uid})))


def test_who_has_too_many_groups_is_known_by_its_own() -> None:
    origin = Origin.of(AcceptedFromUser(1000, 1001, None))  # type: ignore[arg-type]
    assert origin.identity.gids == {1001}


def test_tls_makes_it_private_and_may_name_somebody() -> None:
    plain = Origin("10.0.0.1:5", "10.0.0.1", is_private=False)
    assert plain.with_certificate(None) == Origin("10.0.0.1:5", "10.0.0.1")
    named = plain.with_certificate("rig\n2")
    assert named.is_private
    assert str(named.identity) == "cert:rig?2"


@pytest.mark.parametrize(
    ("identity", "text"),
    [
        (ANONYMOUS, "anonymous"),
        (Identity(uid=0), "user:root"),
        (Identity(uid=54321), "user:54321"),
        (Identity(certificate="rig-2"), "cert:rig-2"),
        (Identity(uid=0, certificate="c", token="t"), "user:root+cert:c+token:t"),
    ],
)
def test_its_name_for_people(identity: Identity, text: str) -> None:
    assert str(identity) == text


def test_a_user_that_was_looked_up_is_called_by_name() -> None:
    assert remember_user("daemon") == 1
    assert str(Identity(uid=1)) == "user:daemon"
    assert remember_user("54322") == 54322
    assert remember_user("no-such-user") is None


def test_the_same_one_is_told_by_all_but_groups() -> None:
    one = Identity(uid=5, gids=frozenset({1, 2}), token="t")
    assert one.is_same(Identity(uid=5, token="t"))
    for other in (ANONYMOUS, Identity(uid=5), Identity(uid=6, token="t"), Identity(uid=5, token="u")):
        assert not one.is_same(other)


def test_administrators_are_root_and_the_daemons_own_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 998)
    assert [Identity(uid=uid).is_local_administrator for uid in (0, 998, 999)] == [True, True, False]
    assert not Identity(certificate="root", token="root").is_local_administrator


def test_a_name_of_somebody_elses_fits_a_line() -> None:
    assert readable("a\x1b[2Jb\n" + "x" * 200) == "a?[2Jb?" + "x" * 93


def test_more_groups_than_are_asked_for_leave_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SO_PEERGROUPS", 9999)
    here, there = socket.socketpair()
    with here, there:
        assert Origin.of(here).identity.gids == {os.getgid()}


@pytest.mark.parametrize(
    ("host", "counted_as"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("user 1000", "user 1000"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
        ("::1", "::1"),
        ("fe80::1%eth0", "fe80::1%eth0"),
        ("fe80::2%eth0", "fe80::2%eth0"),
    ],
)
def test_one_machine_is_one_address_however_many_it_takes(host: str, counted_as: str) -> None:
    assert Origin("somewhere", host).counted_as == counted_as
