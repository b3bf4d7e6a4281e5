"""TLS between processes: what both ends say when it does not come about, and that nothing is lost when it does."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import trio

import lpt_client
from lpt_client import TlsOptions, blocking
from tests.certificates import CLIENT, client_context, options, pair, section
from tests.e2e.client import TIMEOUT_S, Account, RawClient, check_closing
from tests.e2e.daemons import STOP_TIMEOUT_S, DaemonProcess, eventually, serving


class TlsDaemon:
    """A daemon with a listener that speaks TLS and one that does not, and its files."""

    def __init__(self, daemon: DaemonProcess, folder: Path, config: Path) -> None:
        self.daemon = daemon
        self.folder = folder  # of its own certificate, which may be exchanged
        self.config = config
        self.tls_port, self.plain_port = (int(address[1]) for address in daemon.addresses)
        self.url = f"lpts://localhost:{self.tls_port}/LPT1"

    def reload(self, said: str = "reloaded") -> None:
        """Have it read its files; wait for what it says to that."""
        before = self.daemon.log().count(said)
        self.daemon.signal(signal.SIGHUP)
        eventually(lambda: self.daemon.log().count(said) > before)

    def connect(self, context: ssl.SSLContext, **keys: Any) -> RawClient:
        """A client that knows nothing of the SDK, and has said hello."""
        client = RawClient(("127.0.0.1", self.tls_port))
        client.socket = context.wrap_socket(client.socket, server_hostname="localhost")
        return client.hello(**keys)


def write_config(path: Path, folder: Path, certificates: Path, **keys: Any) -> None:
    tls = {**section(folder, **keys), "client_ca": str(certificates / "ca.pem")}
    lines = "\n".join(f"{name} = {json.dumps(value)}" for name, value in tls.items())
    path.write_text(
        '[server]\nlisten = ["lpts://127.0.0.1:0", "lpt://127.0.0.1:0"]\n'
        f"[tls]\n{lines}\n[[port]]\nenable_connect_interrupt = true\npulse_hz = 2000\n"
    )


@pytest.fixture
def start(certificates: Path, tmp_path: Path) -> Iterator[Callable[..., TlsDaemon]]:
    """Starts a daemon; its options are those of `write_config`."""
    with ExitStack() as stack:

        def start(name: str = "server", **keys: Any) -> TlsDaemon:
            for kind, path in zip(("pem", "key"), pair(certificates, name), strict=True):
                shutil.copy(path, tmp_path / f"server.{kind}")
            config = tmp_path / "config.toml"
            write_config(config, tmp_path, certificates, **keys)
            return TlsDaemon(stack.enter_context(serving("--config", str(config), lines=2)), tmp_path, config)

        yield start


Start = Callable[..., TlsDaemon]


def use_blocking(url: str, tls: TlsOptions | ssl.SSLContext | None) -> str:
    """What the daemon calls this client, or why there is no connection."""
    try:
        with blocking.open_port(url, tls=tls, connect_timeout_s=TIMEOUT_S) as port, port.allocated(TIMEOUT_S):
            return str(port.status()["owner"]["identity"])
    except lpt_client.ConnectFailed as exc:
        return str(exc)


def use_trio(url: str, tls: TlsOptions | ssl.SSLContext | None) -> str:
    """The same, under trio."""

    async def use() -> str:
        opening = lpt_client.open_port(url, tls=tls, connect_timeout_s=TIMEOUT_S)
        async with opening as port, port.allocated(TIMEOUT_S):
            return str((await port.status())["owner"]["identity"])

    try:
        return trio.run(use)
    except lpt_client.ConnectFailed as exc:
        return str(exc)


USES = pytest.mark.parametrize("use", [use_blocking, use_trio])


@USES
def test_a_client_with_a_certificate_is_known_by_it(start: Start, certificates: Path, use: Any) -> None:
    tls = start(client_certificate="required")
    assert use(tls.url, options(certificates, "client")) == f"cert:{CLIENT}"
    assert use(tls.url, client_context(certificates, "client")) == f"cert:{CLIENT}"
    eventually(lambda: f"(cert:{CLIENT}): connected from 127.0.0.1:" in tls.daemon.log())


# What each client is told, and what the daemon's log says.
REFUSALS = {
    "unknown authority": (
        ("server", {}, None, "other/ca"),
        "name that authority's ca.pem (LPT_CA for lptctl",
        "the client does not know the authority of this daemon's certificate",
    ),
    "another host's": (
        ("elsewhere", {}, None, "ca"),
        "the daemon's certificate is not for localhost: use a name in the URL that it is for",
        "the client does not take this daemon's certificate (is it for this host's name? is the client's clock right?)",
    ),
    "not valid yet": (
        ("future", {}, None, "ca"),
        "the daemon's certificate is not valid yet: compare the clocks of both computers (here it is 20",
        "the client does not take this daemon's certificate (is it for this host's name? is the client's clock right?)",
    ),
    "client's not valid yet": (
        ("server", {"client_certificate": "optional"}, "future-client", "ca"),
        "its log says why (not valid yet, by its clock?)",
        "the client's certificate is not valid yet (does a clock go wrong?)",
    ),
    "expired": (
        ("expired", {}, None, "ca"),
        "the daemon's certificate has expired: whoever runs it makes a new one (lptctl cert server NAME) (here it is",
        "the client says that this daemon's certificate has expired",
    ),
    "no client certificate": (
        ("server", {"client_certificate": "required"}, None, "ca"),
        "the daemon wants a certificate from this client: name one with its key",
        "the client has sent no certificate, and one is required",
    ),
    "client of an unknown authority": (
        ("server", {"client_certificate": "optional"}, "other/client", "ca"),
        "the daemon does not know the authority of this client's certificate",
        "the client's certificate is of an unknown authority",
    ),
    "client's expired": (
        ("server", {"client_certificate": "optional"}, "expired-client", "ca"),
        "this client's certificate has expired",
        "the client's certificate has expired",
    ),
    "not for clients": (
        ("server", {"client_certificate": "optional"}, "server", "ca"),
        "it is not one for clients",
        "the client's certificate is not one for clients",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_refusal_is_clear_at_both_ends(start: Start, certificates: Path, case: str) -> None:
    (name, keys, shown, believed), told, logged = REFUSALS[case]
    tls = start(name, **keys)
    for use in (use_blocking, use_trio):
        said = use(tls.url, options(certificates, shown, ca=believed))
        assert said.startswith(f"{tls.url}: ")
        assert told in said
    eventually(lambda: tls.daemon.log().count(f": {logged}\n") == 2, tls.daemon.log())
    assert "session" not in tls.daemon.log()


@USES
def test_tls_and_plain_text_meet(start: Start, certificates: Path, use: Any) -> None:
    tls = start()
    plain_at_tls = use(f"lpt://localhost:{tls.tls_port}/LPT1", None)
    assert plain_at_tls.endswith("this listener speaks TLS: use lpts:// in place of lpt://")
    tls_at_plain = use(f"lpts://localhost:{tls.plain_port}/LPT1", options(certificates))
    assert "no TLS is spoken there: use lpt://" in tls_at_plain
    for said in (
        "the client does not speak TLS (lpt:// in place of lpts://?)",
        "closing: this listener does not speak TLS: use lpt:// in place of lpts://",
    ):
        eventually(lambda said=said: said in tls.daemon.log(), said)  # type: ignore[misc]


@USES
def test_who_is_not_let_in_is_told_before_the_handshake(start: Start, certificates: Path, use: Any) -> None:
    tls = start()
    here = '"lpts://127.0.0.1:0"'
    closed = f'{{url = {here}, allow_from = ["192.0.2.0/24"]}}'
    tls.config.write_text(tls.config.read_text().replace(here, closed))
    tls.reload()
    said = use(tls.url, options(certificates))
    assert said.startswith(f"{tls.url}: the daemon does not let this computer in, or has as many connections as")
    eventually(lambda: "connections from 127.0.0.1 are not allowed here" in tls.daemon.log())


@USES
def test_files_that_a_client_cannot_use(start: Start, certificates: Path, use: Any, tmp_path: Path) -> None:
    tls = start()
    missing, key = tmp_path / "missing.pem", certificates / "client.key"
    assert f"{missing} cannot be read: No such file" in use(tls.url, TlsOptions(missing))
    assert f"{key} holds no certificate of an authority" in use(tls.url, TlsOptions(key))
    wrong = TlsOptions(certificates / "ca.pem", certificates / "server.pem", key)
    assert "they do not belong together" in use(tls.url, wrong)
    assert "is a key without a certificate" in use(tls.url, TlsOptions(None, None, key))


def test_an_older_tls(start: Start, certificates: Path) -> None:
    tls, context = start(), client_context(certificates)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    assert "there is no version of TLS that both ends speak" in use_blocking(tls.url, context)
    eventually(lambda: "the client does not speak TLS 1.3" in tls.daemon.log())


def test_who_never_ends_the_handshake_disturbs_nobody(start: Start, certificates: Path) -> None:
    tls = start()
    silent = [socket.create_connection(("127.0.0.1", tls.tls_port)) for _ in range(600)]
    for each in silent[:300]:
        each.sendall(bytes.fromhex("160301"))
    assert use_blocking(tls.url, options(certificates)) == "anonymous"
    eventually(lambda: "the handshake was not over when 512 others came" in tls.daemon.log())
    for each in silent:
        each.close()
    assert use_trio(tls.url, options(certificates)) == "anonymous"


def test_a_listener_that_reads_late_loses_nothing_unnoticed(start: Start, certificates: Path) -> None:
    """Through TLS, with little room: the events in their order, the answers, the fence at the end."""
    tls = start()
    slow = tls.connect(client_context(certificates))
    healthy = tls.connect(client_context(certificates))
    slow.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    accounts = {slow: Account(), healthy: Account()}
    first = {client: client.connect_interrupt() for client in accounts}
    eventually(lambda: accounts[healthy].add(healthy.heard()).received > 3000)
    end = {client: client.disconnect_interrupt() for client in accounts}
    for client, account in accounts.items():
        account.add(client.heard())
        assert account.lost == 0
        assert account.received == end[client] - first[client]
        client.close()


def test_a_client_that_comes_back_gets_the_whole_log(start: Start, certificates: Path) -> None:
    """Some hundred kilobytes at once, to a reader that takes them in small pieces, with answers between."""
    tls = start()
    first = tls.connect(client_context(certificates))
    seq = first.connect_interrupt()
    stream = first.welcome["stream"]
    account = Account()
    eventually(lambda: account.add(first.heard()).received > 3000)
    second = tls.connect(client_context(certificates))
    second.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    begin = second.connect_interrupt(from_=[stream, seq])
    pings = [second.request("ping") for _ in range(200)]
    for msgid in pings:
        second.reply(msgid)
    end = second.disconnect_interrupt()
    late = Account().add(second.heard())
    assert begin == seq
    assert (late.lost, late.received) == (0, end - begin)
    first.close()
    second.close()


def test_the_last_words_arrive_before_the_goodbye(start: Start, certificates: Path) -> None:
    tls = start()
    client = tls.connect(client_context(certificates))
    client.connect_interrupt()
    tls.daemon.signal(signal.SIGTERM)
    assert check_closing(client, answered=[]) == "the daemon is stopping"
    assert client.socket.recv(1) == b"", "an end that was told"
    client.close()
    assert tls.daemon.process.wait(STOP_TIMEOUT_S) == 0


def test_new_certificates_are_for_those_who_come(start: Start, certificates: Path) -> None:
    """Who is there stays, and owns what it owns."""
    tls = start()
    old = tls.connect(client_context(certificates))
    grant = old.allocate()
    shown = old.socket.getpeercert(binary_form=True)  # type: ignore[attr-defined]
    for kind, path in zip(("pem", "key"), pair(certificates, "server2"), strict=True):
        shutil.copy(path, tls.folder / f"server.{kind}")
    write_config(tls.config, tls.folder, certificates, client_certificate="required")
    tls.reload()
    new = tls.connect(client_context(certificates, "client"))
    assert new.socket.getpeercert(binary_form=True) != shown  # type: ignore[attr-defined]
    assert new.call("status", {})["owner"]["grant"] == grant
    old.write(b"\x00", 0x55)
    assert "one is required" not in tls.daemon.log()
    assert "wants a certificate" in use_blocking(tls.url, options(certificates))
    old.close()
    new.close()


def test_a_reload_with_a_pair_that_does_not_match_is_refused_whole(start: Start, certificates: Path) -> None:
    tls = start()
    shutil.copy(certificates / "server2.key", tls.folder / "server.key")
    tls.reload(f"reload refused: tls.key: {tls.folder}/server.key is not the key of {tls.folder}/server.pem")
    (tls.folder / "server.key").unlink()
    tls.reload(f"reload refused: tls.key: {tls.folder}/server.key cannot be read: No such file or directory")
    assert use_blocking(tls.url, options(certificates)) == "anonymous"


def test_a_start_without_certificates_says_which_file(certificates: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    write_config(config, tmp_path, certificates)
    daemon = DaemonProcess("--config", str(config))
    assert daemon.process.wait(STOP_TIMEOUT_S) == 1
    assert daemon.log().startswith(f"lptd: tls.certificate: {tmp_path}/server.pem cannot be read: ")
    assert "Traceback" not in daemon.log()
    daemon.kill()
