"""All listeners of a daemon: those of systemd, those of the configuration, and exchanging them. Real sockets."""

from __future__ import annotations

import os
import re
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from lpt_service.config import ListenerConfig
from lpt_service.server import addresses, listener_set
from lpt_service.server.listener_set import ListenError, ListenerSet
from lpt_service.server.listeners import Listener
from tests.server.fakes import BOUND_S, prepare


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short name: the path of a Unix socket has 107 bytes at the most."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@pytest.fixture
async def listeners() -> AsyncIterator[ListenerSet]:
    """Without systemd."""
    listeners = ListenerSet()
    yield listeners
    listeners.close()


async def exchange(listeners: ListenerSet, *urls: str) -> list[Listener]:
    """Let the configuration be these; those that leave are closed. Those that are new."""
    change = await prepare(listeners, urls)
    listeners.commit(change)
    for each in change.leaving:
        each.close()
    return change.opened


def urls(listeners: ListenerSet) -> list[str]:
    return [str(listener.url) for listener in listeners]


def can_connect(host: str, port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex((host, port)) == 0


@pytest.fixture
def port() -> Iterator[int]:
    """A TCP port that is free, and that nobody else is given: a socket is bound to it that does not listen."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("0.0.0.0", 0))
        yield sock.getsockname()[1]


# Those of the configuration


async def test_what_is_named_again_stays_and_the_rest_is_exchanged(listeners: ListenerSet, folder: Path) -> None:
    first = await exchange(listeners, "lpt://127.0.0.1:0", "lpt://127.0.0.1:0", f"lpt+unix://{folder}/a")
    opened = await exchange(listeners, f"lpt+unix://{folder}/b", "lpt://127.0.0.1:0")
    assert [str(each.url) for each in opened] == [f"lpt+unix://{folder}/b"]
    assert list(listeners) == [opened[0], first[0]]
    assert os.listdir(folder) == ["b"]
    assert first[1].socket.fileno() == -1
    same_by_its_number = await exchange(listeners, str(first[0].url))
    assert same_by_its_number == []
    assert list(listeners) == [first[0]]


async def test_a_name_and_its_address_are_the_same(
    listeners: ListenerSet, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener_set, "RESOLVE_TIMEOUT_S", BOUND_S)
    await exchange(listeners, f"lpt://localhost:{port}")
    before = next(each for each in listeners if each.address.host == "127.0.0.1")
    await exchange(listeners, f"lpt://127.0.0.1:{port}")
    assert list(listeners) == [before]


@pytest.mark.parametrize(("before", "after"), [("0.0.0.0", "127.0.0.1"), ("127.0.0.1", "0.0.0.0")])
async def test_narrower_or_wider_without_a_moment_of_silence(
    listeners: ListenerSet, port: int, before: str, after: str
) -> None:
    await exchange(listeners, f"lpt://{before}:{port}")
    change = await prepare(listeners, [f"lpt://{after}:{port}"])
    assert can_connect("127.0.0.1", port)
    listeners.commit(change)
    change.leaving[0].close()
    assert can_connect("127.0.0.1", port)
    assert urls(listeners) == [f"lpt://{after}:{port}"]
    with pytest.raises(OSError, match="in use"), socket.create_server((after, port)):
        pass


async def test_every_problem_is_named_with_its_path_and_nothing_has_changed(
    listeners: ListenerSet, folder: Path, bound: list[socket.socket]
) -> None:
    before = await exchange(listeners, "lpt://127.0.0.1:0")
    with pytest.raises(ListenError) as caught:
        await prepare(listeners, [f"lpt+unix://{folder}/s", "lpt+unix:///no/such/s", "lpt://192.0.2.1:0"])
    assert [problem.split(": cannot listen on ")[0] for problem in caught.value.problems] == [
        "server.listen[1]",
        "server.listen[2]",
    ]
    assert list(listeners) == before
    assert not before[0].socket.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT), "nobody else may listen there"
    assert os.listdir(folder) == []
    assert [each.fileno() == -1 for each in bound] == [False, True]


async def test_a_name_that_nobody_resolves_is_a_problem_in_time(
    listeners: ListenerSet, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(*args: object, **keys: object) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr(trio.socket, "getaddrinfo", never)
    with pytest.raises(ListenError) as caught:
        await prepare(listeners, ["lpt://slow.example:1", "lpt://slower.example:1"])
    assert trio.current_time() == addresses.RESOLVE_TIMEOUT_S
    assert len(caught.value.problems) == 2
    assert "the name was not resolved within 5 s" in caught.value.problems[1]


async def test_who_has_connected_to_a_listener_that_goes_is_let_in(listeners: ListenerSet, folder: Path) -> None:
    path = folder / "s"
    opened = await exchange(listeners, "lpt://127.0.0.1:0", f"lpt+unix://{path}")
    with socket.socket(socket.AF_UNIX) as unix, socket.create_connection(opened[0].socket.getsockname()) as tcp:
        unix.connect(str(path))
        accepted: list[socket.socket] = []
        for each in opened:
            each.retire(accepted.append)
        for end, client in zip(accepted, (tcp, unix), strict=True):
            end.sendall(b"x")
            assert client.recv(1) == b"x"
            end.close()
    assert not path.exists()


# Those of systemd


def inherited(
    host: str = "127.0.0.1", port: int = 0, *, family: int = socket.AF_INET, v6only: bool = False
) -> socket.socket:
    sock = socket.socket(family)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, v6only)
    sock.bind((host, port))
    sock.listen()
    return sock


async def test_systemd_s_win_and_the_others_are_added(folder: Path) -> None:
    path = folder / "s"
    unix = socket.socket(socket.AF_UNIX)
    unix.bind(str(path))
    unix.listen()
    tcp = inherited()
    port = tcp.getsockname()[1]
    listeners = ListenerSet([unix, tcp])
    opened = await exchange(listeners, f"lpt://127.0.0.1:{port}", f"lpt+unix://{path}", "lpt://127.0.0.2:0")
    assert [each.url.host for each in opened] == ["127.0.0.2"]
    assert urls(listeners) == [f"lpt+unix://{path}", f"lpt://127.0.0.1:{port}", str(opened[0].url)]
    await exchange(listeners)
    assert urls(listeners) == [f"lpt+unix://{path}", f"lpt://127.0.0.1:{port}"]
    listeners.close()
    assert path.exists(), "the file is systemd's"


async def test_a_wildcard_of_systemd_s_serves_every_address_of_its_family(port: int) -> None:
    for host, family, v6only, serves in (
        ("0.0.0.0", socket.AF_INET, False, {"127.0.0.1"}),
        ("::", socket.AF_INET6, False, {"127.0.0.1", "::1"}),
        ("::", socket.AF_INET6, True, {"::1"}),
    ):
        try:
            sock = inherited(host, port, family=family, v6only=v6only)
        except OSError:
            pytest.skip("no IPv6 here")
        listeners = ListenerSet([sock])
        change = await prepare(listeners, [f"lpt://127.0.0.1:{port}", f"lpt://[::1]:{port}"])
        assert {each.address.host for each in change.opened} == {"127.0.0.1", "::1"} - serves
        assert change.unnamed == []
        change.give_up()
        listeners.close()


async def test_a_wildcard_beside_one_of_systemd_s_is_refused_with_the_way_out() -> None:
    sock = inherited()
    listeners = ListenerSet([sock])
    port = sock.getsockname()[1]
    said = (
        f"it includes lpt://127.0.0.1:{port}, which systemd holds for this daemon: take another TCP port.*lptd.socket"
    )
    with pytest.raises(ListenError, match=said):
        await prepare(listeners, [f"lpts://0.0.0.0:{port}"])
    listeners.close()


@pytest.mark.parametrize("hosts", [("0.0.0.0", "127.0.0.1"), ("127.0.0.1", "0.0.0.0"), ("127.0.0.1", "127.0.0.1")])
async def test_two_of_one_list_that_overlap_are_refused_with_the_way_out(
    hosts: tuple[str, str], listeners: ListenerSet, port: int
) -> None:
    one, other = (f"lpt://{host}:{port}" for host in hosts)
    how = "includes" if hosts[1] == "0.0.0.0" else "is covered by"
    said = re.escape(f"server.listen[1]: cannot listen on {other}: it {how} {one}, which the same list names")
    with pytest.raises(ListenError, match=said):
        await prepare(listeners, [one, other])
    await exchange(listeners, one)
    with pytest.raises(ListenError, match=said):
        await prepare(listeners, [one, other])


async def test_those_of_systemd_that_are_not_named_are_told() -> None:
    listeners = ListenerSet([inherited(), inherited()])
    one, other = listeners.inherited
    change = await prepare(listeners, [str(one.url)])
    assert change.unnamed == [other]
    listeners.close()


# TLS


async def test_an_address_changes_to_tls_and_back_without_a_moment_of_silence(
    listeners: ListenerSet, port: int
) -> None:
    for scheme in ("lpt", "lpts", "lpt"):
        change = await prepare(listeners, [f"{scheme}://127.0.0.1:{port}"])
        assert len(change.opened) == 1
        assert scheme == "lpt" or can_connect("127.0.0.1", port)
        listeners.commit(change)
        for each in change.leaving:
            each.close()
        assert can_connect("127.0.0.1", port)
        assert urls(listeners) == [f"{scheme}://127.0.0.1:{port}"]
    assert await exchange(listeners, f"lpt://127.0.0.1:{port}") == []


async def test_systemds_socket_speaks_tls_if_the_configuration_says_so() -> None:
    listeners = ListenerSet([inherited("0.0.0.0")])
    port = listeners.inherited[0].address.tcp_port
    for named, is_tls in ((["lpts"], True), ([], False), (["lpt"], False), (["lpts"], True)):
        change = await prepare(listeners, [f"{scheme}://127.0.0.1:{port}" for scheme in named])
        assert change.opened == []
        listeners.commit(change)
        assert urls(listeners) == [f"{'lpts' if is_tls else 'lpt'}://0.0.0.0:{port}"]
    with pytest.raises(ListenError, match=f"both lpt:// and lpts:// name lpt://0.0.0.0:{port}"):
        await prepare(listeners, [f"lpts://127.0.0.1:{port}", f"lpt://127.0.0.2:{port}"])
    listeners.close()


# Who may reach what systemd has opened

EXPOSED = "could use the ports: make [[token]], [[role]] or required client certificates"


async def prepare_tables(listeners: ListenerSet, *items: dict[str, Any], is_open: bool = True) -> None:
    tables = [ListenerConfig(**item) for item in items]
    listeners.commit(await listeners.prepare(tables, lambda is_tls: is_open and not is_tls))


async def test_a_wide_socket_of_systemds_is_refused_unless_it_is_said_in_words() -> None:
    listeners = ListenerSet([inherited("0.0.0.0")])
    url = str(listeners.inherited[0].url)
    for items in ([], [{"url": url}], [{"url": url, "allow_from": ("10.0.0.0/8",)}]):
        with pytest.raises(ListenError) as caught:
            await prepare_tables(listeners, *items)
        (problem,) = caught.value.problems
        assert problem.startswith(f"systemd's socket: whoever reaches {url} from another machine {EXPOSED}")
        assert "(name it in server.listen for that)" in problem
    await prepare_tables(listeners, {"url": url, "insecure": True})
    await prepare_tables(listeners, {"url": url.replace("lpt:", "lpts:")})
    await prepare_tables(listeners, is_open=False)
    listeners.close()


async def test_one_of_this_machines_own_is_not() -> None:
    listeners = ListenerSet([inherited()])
    await prepare_tables(listeners)
    listeners.close()


async def test_networks_hold_for_what_systemd_has_opened() -> None:
    listeners = ListenerSet([inherited("0.0.0.0")])
    item = {"url": str(listeners.inherited[0].url), "insecure": True}
    for networks in (("10.0.0.0/8",), None):
        await prepare_tables(listeners, {**item, "allow_from": networks})
        assert listeners.inherited[0].allow_from == networks
    listeners.close()


@pytest.mark.parametrize("order", [1, -1])
async def test_two_items_that_stand_for_one_of_systemds_must_agree(order: int) -> None:
    """Otherwise one that allows more would open what the other closes."""
    listeners = ListenerSet([inherited("0.0.0.0")])
    port = listeners.inherited[0].address.tcp_port
    own: dict[str, Any] = {"url": f"lpt://127.0.0.1:{port}"}
    wide: dict[str, Any] = {"url": f"lpt://0.0.0.0:{port}", "allow_from": ("10.0.0.0/8",)}
    with pytest.raises(ListenError) as caught:
        await prepare_tables(listeners, *[own, wide][::order], is_open=False)
    said = f"server.listen[1]: systemd's lpt://0.0.0.0:{port} is named twice, with other allow_from or insecure"
    assert caught.value.problems == [said]
    await prepare_tables(listeners, own, {**wide, "allow_from": None}, is_open=False)
    listeners.close()
