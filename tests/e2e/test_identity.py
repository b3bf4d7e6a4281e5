"""Who is who, and who may what, to a daemon in its own process: users, tokens and certificates of real connections."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import socket
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import msgpack
import pytest

from tests.certificates import CLIENT, client_context, section
from tests.e2e.client import (
    ALLOCATE,
    DATA,
    READ_PORT_UCHAR,
    TIMEOUT_S,
    Address,
    RawClient,
    RefusedError,
    check_closing,
)
from tests.e2e.daemons import STOP_TIMEOUT_S, DaemonProcess, eventually, serving

SECRETS = {"lab": "correct horse", "guest": "battery staple"}
ANNA, BERTA, CARLA, LAB = 61001, 61002, 61003, 61004  # nobody's numbers; the last is a group's
ROLES = f"""
[[role]]
who = ["user:{ANNA}", "token:lab", "cert:{CLIENT}"]
role = "use"
[[role]]
who = ["group:{LAB}", "token:guest"]
role = "observe"
[[role]]
who = ["token:lab"]
role = "admin"
ports = ["B"]
"""
NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be other users")


def tokens(*names: str) -> str:
    digests = {name: hashlib.sha256(SECRETS[name].encode()).hexdigest() for name in names}
    return "".join(f'[[token]]\nname = "{name}"\nsha256 = "{digest}"\n' for name, digest in digests.items())


class House:
    """A daemon with ports A and B behind a Unix socket, TCP and TLS, and its files."""

    def __init__(self, daemon: DaemonProcess, config: Path, audit: Path) -> None:
        self.daemon, self.config, self.audit = daemon, config, audit
        self.unix, self.tcp, self.tls = daemon.addresses[::2]

    def hello(self, address: Address, *, port: str = "A", **keys: Any) -> RawClient:
        return RawClient(address).hello(port=port, **keys)

    def trail(self, event: str) -> list[dict[str, Any]]:
        """The audit's lines of one kind."""
        if not self.audit.exists():
            return []
        lines = [json.loads(line) for line in self.audit.read_text().splitlines()]
        return [line for line in lines if line["event"] == event]

    def reload(self, text: str) -> None:
        before = self.daemon.log().count("INFO reloaded")
        self.config.write_text(text)
        self.daemon.signal(signal.SIGHUP)
        eventually(lambda: self.daemon.log().count("INFO reloaded") > before)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, certificates: Path) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("identity")
    with tempfile.TemporaryDirectory() as short:
        os.chmod(short, 0o755)  # noqa: S103 - for the other users
        tls = "".join(
            f"{key} = {json.dumps(value)}\n"
            for key, value in section(certificates, client_certificate="optional").items()
        )
        config, audit = folder / "lptd.toml", folder / "audit.jsonl"
        config.write_text(
            f'[server]\nlisten = ["lpt+unix://{short}/s", "lpt://127.0.0.1:0", "lpts://127.0.0.1:0"]\n'
            f'[[port]]\nname = "A"\nenable_connect_interrupt = true\n[[port]]\nname = "B"\n'
            f'[audit]\nfile = "{audit}"\n[tls]\n{tls}{tokens(*SECRETS)}{ROLES}'
        )
        with serving("--config", str(config), lines=6) as daemon:
            os.chmod(f"{short}/s", 0o666)  # noqa: S103
            yield House(daemon, config, audit)


@contextmanager
def acting_as(uid: int, *groups: int) -> Iterator[None]:
    """Connections that begin meanwhile are this user's."""
    former = os.getgroups()
    os.setgroups(groups)
    os.setegid(uid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(former)


def connect_as(address: Address, uid: int, *groups: int) -> RawClient:
    with acting_as(uid, *groups):
        return RawClient(address)


def refused(client: RawClient, method: str, *params: Any) -> str:
    with pytest.raises(RefusedError) as caught:
        client.call(method, *params)
    assert caught.value.name == "STATUS_ACCESS_DENIED"
    return caught.value.detail


def refused_hello(client: RawClient, **keys: Any) -> str:
    """Why somebody is not let in; its conversation is over."""
    with closing(client):
        detail = refused(client, "hello", {"protocol": 1, "port": "A", **keys})
        assert check_closing(client, answered=[]) == f"hello refused: STATUS_ACCESS_DENIED: {detail}"
        return detail


# Users


@NEEDS_ROOT
def test_users_and_groups_of_a_unix_socket(house: House) -> None:
    with closing(connect_as(house.unix, ANNA).hello(port="A")) as anna:
        anna.allocate()
        assert anna.call("status")["owner"]["identity"] == f"user:{ANNA}"
    with closing(connect_as(house.unix, BERTA, 5, LAB).hello(port="A")) as berta:
        assert berta.read(DATA) >= 0
        berta.connect_interrupt()
        assert berta.call("status")["registrations"][0]["identity"] == f"user:{BERTA}"
        detail = refused(berta, "internal_device_control", ALLOCATE, b"", 8)
        assert detail == (
            "role: IOCTL_INTERNAL_PARALLEL_PORT_ALLOCATE needs the role use on port A, this session has observe"
        )
    assert refused_hello(connect_as(house.unix, CARLA, 5)) == f"role: user:{CARLA} has none here"
    with closing(connect_as(house.unix, CARLA).hello(port="B", token=SECRETS["lab"])) as carla:
        carla.call("pause", {"reason": "test"})
        carla.call("resume", {})
    eventually(lambda: noted(house, "pause", port="B", identity=f"user:{CARLA}+token:lab", reason="test"))


@NEEDS_ROOT
def test_root_and_the_daemons_user_administer_all(house: House) -> None:
    with closing(house.hello(house.unix, client="boss")) as root, closing(house.hello(house.unix, port="B")) as other:
        assert root.welcome["features"] == ["disconnected", "administration", "drain"]
        eventually(lambda: bool(root.call("drain", {"on": True})["idle"]))  # once the tests before have gone
        root.call("drain", {"on": False})
        anna = connect_as(house.unix, ANNA).hello(port="A", client="stuck")
        anna.allocate()
        assert root.call("kick", {"session": anna.welcome["session"], "reason": "gone home"})
        assert check_closing(anna, answered=[]) == "administrator: gone home"
        anna.close()
        eventually(lambda: root.call("status")["owner"] is None)
        assert other.call("ping")
    number = anna.welcome["session"]
    eventually(lambda: noted(house, "kick", identity="user:root", target=number, reason="gone home"))
    eventually(lambda: noted(house, "released", identity=f"user:{ANNA}", session=number))


def noted(house: House, event: str, **fields: Any) -> bool:
    """Whether the audit has such a line."""
    return any(fields.items() <= line.items() for line in house.trail(event))


# Tokens


def test_a_token_over_tcp_within_this_machine(house: House) -> None:
    with closing(house.hello(house.tcp, token=SECRETS["lab"], client="EEG")) as client:
        client.allocate()
        owner = client.call("status")["owner"]
        assert (owner["client"], owner["identity"]) == ("EEG", "token:lab")
        assert client.call("queue", {})["owner"] == owner
        refused(client, "pause", {})
    with closing(house.hello(house.tcp, port="B", token=SECRETS["lab"])) as client:
        client.call("pause", {})
        client.call("resume", {})
        assert refused(client, "drain", {"on": True}).endswith("needs the role admin on every port of the daemon")
    with closing(house.hello(house.tcp, token=SECRETS["guest"])) as guest:
        guest.ioctl(READ_PORT_UCHAR, DATA, 1)
        assert "this session has observe" in refused(guest, "internal_device_control", ALLOCATE, b"", 8)
    for event in ("granted", "released"):
        eventually(lambda event=event: noted(house, event, identity="token:lab", client="EEG"))  # type: ignore[misc]


def test_who_is_refused_is_told_the_same_whatever_it_asks_for(house: House) -> None:
    wrong = ("", "wrong", SECRETS["lab"].upper(), hashlib.sha256(SECRETS["lab"].encode()).hexdigest())
    for port in ("A", "B", "NONE"):
        for keys in ({}, {"resume": "0" * 32}):
            detail = refused_hello(RawClient(house.tcp), port=port, **keys)
            assert detail == "role: anonymous has none here"
            for token in wrong:
                client = RawClient(house.tcp)
                tcp_port = client.socket.getsockname()[1]
                detail = refused_hello(client, port=port, token=token, **keys)
                assert detail == "token: missing or wrong"
    why, peer = "hello: token: missing or wrong", f"127.0.0.1:{tcp_port}"
    eventually(lambda: noted(house, "refused", identity="anonymous", peer=peer, why=why))
    for secret in SECRETS.values():
        assert secret not in house.daemon.log() + house.audit.read_text()


# Certificates


def over_tls(house: House, context: ssl.SSLContext) -> RawClient:
    client = RawClient(house.tls)
    client.socket = context.wrap_socket(client.socket, server_hostname="localhost")
    return client


def test_certificates(house: House, certificates: Path) -> None:
    with closing(over_tls(house, client_context(certificates, "client")).hello(port="B")) as client:
        client.allocate()
        assert client.call("status")["owner"]["identity"] == f"cert:{CLIENT}"
        assert refused(client, "revoke", {}) == ("role: revoke needs the role admin on port B, this session has use")
    with closing(
        over_tls(house, client_context(certificates, "client")).hello(port="B", token=SECRETS["lab"])
    ) as client:
        assert client.call("revoke", {}) == {"revoked": None, "grant": None}
    assert refused_hello(over_tls(house, client_context(certificates))) == "role: anonymous has none here"
    with closing(over_tls(house, client_context(certificates)).hello(port="A", token=SECRETS["guest"])) as client:
        assert client.call("ping")


# The log, reload


def test_every_line_about_a_session_says_who_it_is(house: House) -> None:
    with closing(house.hello(house.tcp, token=SECRETS["lab"], client="a\nb")) as client:
        number = client.welcome["session"]
        client.socket.sendall(b"\xc1")
        client.rest()
    eventually(lambda: re.search(rf"session {number} \(.*\): ended", house.daemon.log()) is not None)
    lines = [line for line in house.daemon.log().splitlines() if " session " in line and "audit: " not in line]
    assert all(re.search(r" session \d+ \([^ ]+\): ", line) for line in lines)
    mine = [line for line in lines if f" session {number} (" in line]
    assert [("(token:lab)" in line, "hello from 'a\\nb' for port A" in line) for line in mine[1:3]] == [
        (True, True),
        (True, False),
    ]
    assert "(anonymous): connected from 127.0.0.1:" in mine[0]


def test_a_reload_gives_roles_to_those_who_come(house: House) -> None:
    text = house.config.read_text()
    with closing(house.hello(house.tcp, token=SECRETS["guest"])) as before:
        try:
            house.reload(text.replace('who = ["group:', 'who = ["anonymous", "group:').replace('"observe"', '"use"'))
            refused(before, "internal_device_control", ALLOCATE, b"", 8)
            for keys in ({"token": SECRETS["guest"]}, {}):
                with closing(house.hello(house.tcp, **keys)) as after:
                    after.allocate()
        finally:
            house.reload(text)
    refused_hello(RawClient(house.tcp))


# Listeners


def test_networks_and_numbers_of_connections(tmp_path: Path) -> None:
    """On loopback, every address of which may stand for another machine."""
    config = tmp_path / "lptd.toml"
    config.write_text(
        '[server]\nlisten = [{url = "lpt://127.0.0.1:0", allow_from = ["127.0.0.1", "127.7.0.0/16"]}]\n'
        "[limits]\nmax_connections_per_address = 2\n"
    )

    with serving("--config", str(config)) as daemon:

        def come_from(host: str) -> socket.socket:
            sock = socket.create_connection(daemon.address, TIMEOUT_S, (host, 0))  # type: ignore[arg-type]
            sock.sendall(msgpack.packb([0, 1, "hello", [{"protocol": 1}]]))
            return sock

        def first_message(sock: socket.socket) -> Any:
            return next(iter(msgpack.Unpacker(sock.makefile("rb"), read_size=1)))

        def is_let_in(sock: socket.socket) -> bool:
            return bool(first_message(sock)[:3] == [1, 1, None])

        for host in ("127.0.0.2", "127.8.0.1"):
            with come_from(host) as stranger:
                assert first_message(stranger) == [2, "closing", [f"connections from {host} are not allowed here"]]
        with come_from("127.7.0.1") as first, come_from("127.7.0.1") as second, come_from("127.0.0.1") as other:
            assert all(is_let_in(each) for each in (first, second, other))
            with come_from("127.7.0.1") as third:
                said = "127.7.0.1 has as many connections as one address may have"
                assert first_message(third) == [2, "closing", [said]]
            second.close()
            eventually(lambda: daemon.log().count(": ended") == 1)
            with come_from("127.7.0.1") as fourth:
                assert is_let_in(fourth)
        assert "refused a connection from 127.8.0.1:" in daemon.log()


@pytest.mark.parametrize("is_wide", [True, False])
def test_what_systemd_has_opened_is_not_let_open_to_anybody(tmp_path: Path, is_wide: bool) -> None:
    config = tmp_path / "lptd.toml"
    host = "0.0.0.0" if is_wide else "127.0.0.1"
    with socket.create_server((host, 0)) as sock:
        url = f"lpt://{host}:{sock.getsockname()[1]}"
        config.write_text(f'[server]\nlisten = ["lpt+unix://{tmp_path}/s"]\n')
        if is_wide:
            daemon = DaemonProcess("--config", str(config), sockets=[sock])
            try:
                assert daemon.process.wait(STOP_TIMEOUT_S) == 1
                said = f"lptd: systemd's socket: whoever reaches {url} from another machine could use the ports: "
                assert daemon.log().startswith(said)
                assert "Traceback" not in daemon.log()
            finally:
                daemon.kill()
            config.write_text(f'[server]\nlisten = [{{url = "{url}", insecure = true, allow_from = ["127.0.0.2"]}}]\n')
        with serving("--config", str(config), sockets=[sock], lines=1 if is_wide else 2) as daemon:
            client = RawClient(("127.0.0.1", sock.getsockname()[1]))
            if is_wide:
                assert check_closing(client, answered=[]) == "connections from 127.0.0.1 are not allowed here"
            else:
                client.hello().allocate()
            client.close()
