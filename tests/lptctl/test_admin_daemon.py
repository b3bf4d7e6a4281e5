"""The commands of administrators against a real daemon with roles and tokens: who may, and what it does."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from tests.lptctl.processes import Lptctl, finish, read_line, running_daemon, started, wait_until_idle
from tests.lptctl.test_run import SLEEPING
from tests.lptctl.test_token import tables_of

pytest.importorskip("click")
pytest.importorskip("trio")
pytest.importorskip("tomllib")
from lpt_client import blocking
from lpt_client.errors import ConnectionLost, PortPaused, Revoked
from lpt_service.config import load
from lptctl.token_command import sha256_of

ROLES = {"watcher": "observe", "stimulus PC": "use", "chief": "admin"}
TOKENS = {name: f"the token of {name}" for name in ROLES}

OpenPort = Callable[[str], AbstractContextManager[blocking.Port]]


def token_table(name: str) -> str:
    return f'[[token]]\nname = "{name}"\nsha256 = "{sha256_of(TOKENS[name])}"\n'


def role_table(name: str) -> str:
    return f'[[role]]\nwho = ["token:{name}"]\nrole = "{ROLES[name]}"\n'


@pytest.fixture(scope="module")
def shared_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A port whose every role somebody has, by a token."""
    config = tmp_path_factory.mktemp("roles") / "config.toml"
    tables = [token_table(name) + role_table(name) for name in ROLES]
    config.write_text("".join(['server.listen = ["lpt://127.0.0.1:0"]\n', *tables]), encoding="utf-8")
    with running_daemon("--config", str(config)) as daemon:
        yield daemon.url


@pytest.fixture
def url(shared_url: str) -> str:
    """The same, once the daemon has noticed that those of the test before are gone."""
    wait_until_idle(shared_url, token=TOKENS["chief"])
    return shared_url


@pytest.fixture
def be(url: str, lptctl: Lptctl, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Be somebody from now on, by a token."""
    monkeypatch.setenv("LPT_URL", url)
    return lambda name: monkeypatch.setenv("LPT_TOKEN", TOKENS[name])


@pytest.fixture
def open_port(url: str) -> OpenPort:
    """A port as the program of somebody."""

    @contextmanager
    def open_port(name: str) -> Iterator[blocking.Port]:
        with blocking.open_port(url, client=f"program of {name}", token=TOKENS[name]) as port:
            yield port

    return open_port


Be = Callable[[str], None]


@pytest.mark.parametrize("name", ["watcher", "stimulus PC"])
@pytest.mark.parametrize("command", [("revoke",), ("kick", "1"), ("pause",), ("resume",), ("drain", "--", "true")])
def test_who_is_no_administrator_is_told_the_role(lptctl: Lptctl, be: Be, name: str, command: tuple[str, ...]) -> None:
    be(name)
    result = lptctl.fails(*command)
    assert result.code == 1
    needs = f"role: {command[0]} needs the role admin on "
    assert needs in result.err
    assert f"this session has {ROLES[name]}" in result.err or command[0] == "drain"
    assert "LPT_TOKEN" in result.err


@pytest.mark.parametrize(
    "command", [("write", "data", "1"), ("pulse", "1", "--width-us", "10"), ("run", "--", "true"), ("latency",)]
)
def test_an_observer_owns_nothing(lptctl: Lptctl, be: Be, command: tuple[str, ...]) -> None:
    be("watcher")
    result = lptctl.fails(*command)
    assert result.code == 1
    assert "needs the role use on port LPT1, this session has observe" in result.err


@pytest.mark.parametrize("command", [("status",), ("queue",), ("read",), ("ping", "--count", "1")])
def test_an_observer_sees_everything(lptctl: Lptctl, be: Be, command: tuple[str, ...]) -> None:
    be("watcher")
    result = lptctl(*command)
    assert (result.code, result.err) == (0, "")


def test_without_a_token_and_with_a_wrong_one(lptctl: Lptctl, be: Be, monkeypatch: pytest.MonkeyPatch) -> None:
    be("chief")
    for token in ("", "one that was made up"):
        monkeypatch.setenv("LPT_TOKEN", token)
        result = lptctl.fails("status")
        assert result.code == 1
        assert "LPT1" not in result.err
        assert not any(name in result.err for name in ROLES)


def test_who_is_who_is_shown(lptctl: Lptctl, be: Be, open_port: OpenPort, url: str) -> None:
    be("watcher")
    with (
        open_port("stimulus PC") as port,
        port.allocated() as grant,
        started("run", "--", "true", url=url, LPT_TOKEN=TOKENS["chief"]) as waiting,
    ):
        read_line(waiting.stderr)
        number = port.session.session
        shown, queued = lptctl("status").out, lptctl("queue").out
        report = json.loads(lptctl("status", "--json").out)
    assert f"program of stimulus PC (session {number}, token:stimulus PC, 127.0.0.1:" in shown
    assert f"grant {grant}" in shown
    assert re.search(r"1\. lptctl run true\[\d+\] \(session \d+, token:chief, 127", shown)
    assert re.search(rf"^owner +program of stimulus PC +{number} +token:stimulus PC ", queued, re.MULTILINE)
    assert re.search(r"^1 +lptctl run true\[\d+\] +\d+ +token:chief ", queued, re.MULTILINE)
    assert report["owner"]["identity"] == "token:stimulus PC"


def test_revoke(lptctl: Lptctl, be: Be, open_port: OpenPort) -> None:
    be("chief")
    assert lptctl("revoke").out == "nobody owns LPT1\n"
    with open_port("stimulus PC") as port:
        grant = port.allocate()
        result = lptctl("revoke", "--reason", "gone home")
        assert result == (0, f"session {port.session.session} has lost LPT1 (grant {grant})\n", "")
        with pytest.raises(Revoked, match="administrator: gone home"):
            port.write_data(1)


def test_the_command_of_a_run_that_is_revoked_ends(lptctl: Lptctl, be: Be, url: str) -> None:
    be("chief")
    with started("run", *SLEEPING, url=url, LPT_TOKEN=TOKENS["stimulus PC"]) as process:
        read_line(process.stdout)
        assert lptctl("revoke", "--reason", "gone home").code == 0
        code, _, err = finish(process)
    assert (code, err) == (3, "lptctl: the port was lost, the command is ended: administrator: gone home\n")


def test_kick(lptctl: Lptctl, be: Be, open_port: OpenPort) -> None:
    be("chief")
    with open_port("stimulus PC") as port:
        port.allocate()
        number = port.session.session
        assert lptctl("kick", str(number), "--reason", "it loops") == (0, f"session {number} has ended\n", "")
        with pytest.raises(ConnectionLost, match="administrator: it loops"):
            port.ping()
    refused = lptctl.fails("kick", str(number))
    assert refused.code == 1
    assert str(number) in refused.err


def test_pause_and_resume(lptctl: Lptctl, be: Be, open_port: OpenPort) -> None:
    be("chief")
    with open_port("stimulus PC") as port:
        assert lptctl("pause", "--reason", "the cable").out == "LPT1 is paused; `lptctl resume` lets it go on\n"
        assert "is paused already" in lptctl("pause", "--reason", "the cable").out
        with pytest.raises(PortPaused, match="the cable"):
            port.read_data()
        be("watcher")
        assert "paused      the cable; nobody is granted the port" in lptctl("status").out
        refused = lptctl.fails("read")
        assert refused.code == 1
        assert "port LPT1 is paused: the cable; `lptctl resume` lets it go on" in refused.err
        be("stimulus PC")
        waited = lptctl.fails("write", "--no-wait", "data", "1")
        assert waited == (4, "", "lptctl: LPT1 was not got: it is paused (the cable); wait longer with --timeout\n")
        be("chief")
        assert lptctl("resume").out == "LPT1 goes on\n"
        assert lptctl("resume").out == "LPT1 was not paused\n"
        assert port.read_data() == 0


def test_drain(lptctl: Lptctl, be: Be) -> None:
    be("chief")
    assert lptctl("drain", "--timeout", "60", "--", "true").code == 0


def test_what_token_prints_works_in_a_configuration(
    lptctl: Lptctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both tables as they are printed, beside those of others."""
    shown = lptctl("token", "bench").out
    (token,) = re.findall(r"LPT_TOKEN=(\S+)$", shown, re.MULTILINE)
    config = tmp_path / "config.toml"
    server = 'server.listen = ["lpt://127.0.0.1:0"]\n'
    config.write_text(
        "\n".join((server, token_table("chief"), role_table("chief"), *tables_of(shown))), encoding="utf-8"
    )
    loaded = load(config)
    assert [each.name for each in loaded.token] == ["chief", "bench"]
    assert loaded.role[-1].who == ("token:bench",)
    with running_daemon("--config", str(config)) as daemon:
        monkeypatch.setenv("LPT_TOKEN", token)
        assert lptctl("write", "data", "1", url=daemon.url).code == 0
        refused = lptctl.fails("pause")
        assert refused.code == 1
        assert "this session has use" in refused.err
