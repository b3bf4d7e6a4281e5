"""lptctl cert: files that nobody else can read, that nothing overwrites, and that a daemon and its clients take."""

from __future__ import annotations

import json
import shutil
import stat
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509

from lptctl import authority
from tests.lptctl.processes import Lptctl, running_daemon


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where lptctl runs, with a home that has nothing for TLS."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    for name in ("LPT_CA", "LPT_CERTIFICATE", "LPT_KEY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def made(lptctl: Lptctl, *arguments: str) -> str:
    result = lptctl("cert", *arguments)
    assert (result.code, result.err) == (0, "")
    return result.out


def test_an_authority_a_daemon_and_a_client_that_understand_each_other(
    lptctl: Lptctl, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "lptctl cert server HOSTNAME" in made(lptctl, "init")
    said = made(lptctl, "server", "localhost", "127.0.0.1")
    assert "install -m 640 -g lpt lpt-ca/localhost.pem /etc/lptd/tls/server.pem" in said
    assert "install -m 640 -g lpt lpt-ca/localhost.key /etc/lptd/tls/server.key" in said
    assert "lpts://localhost:5379/LPT1" in said
    assert "install -m 600 lpt-ca/alice.key ~/.config/lpt/client.key" in made(lptctl, "client", "alice")
    (folder / "config.toml").write_text(
        '[server]\nlisten = ["lpts://127.0.0.1:0"]\n[tls]\nclient_certificate = "required"\n'
        + "".join(
            f'{key} = "{folder}/lpt-ca/{name}"\n'
            for key, name in (("certificate", "localhost.pem"), ("key", "localhost.key"), ("client_ca", "ca.pem"))
        )
    )
    with running_daemon("--config", str(folder / "config.toml")) as daemon:
        monkeypatch.setenv("LPT_URL", daemon.url)
        result = lptctl.fails("status")
        assert result.code == 3
        assert "name that authority's ca.pem (LPT_CA for lptctl" in result.err
        assert "start lptd there" not in result.err
        monkeypatch.setenv("LPT_CA", "lpt-ca/ca.pem")
        assert "LPT_CERTIFICATE and LPT_KEY for lptctl" in lptctl.fails("status").err
        monkeypatch.setenv("LPT_CERTIFICATE", "lpt-ca/alice.pem")
        monkeypatch.setenv("LPT_KEY", "lpt-ca/alice.key")
        assert json.loads(lptctl("status", "--json").out)["port"] == "LPT1"

        for name in ("LPT_CA", "LPT_CERTIFICATE", "LPT_KEY"):
            monkeypatch.delenv(name)
        (folder / "home/lpt").mkdir(parents=True)
        for source, name in (("ca.pem", "ca.pem"), ("alice.pem", "client.pem"), ("alice.key", "client.key")):
            shutil.copy(folder / "lpt-ca" / source, folder / "home/lpt" / name)
        assert lptctl("run", "--", sys.executable, "-c", "pass").code == 0
        assert lptctl("ping", "--count", "2").code == 0


def test_keys_are_for_their_owner_alone(lptctl: Lptctl, folder: Path) -> None:
    made(lptctl, "init")
    made(lptctl, "server", "lab-pc")
    assert stat.S_IMODE((folder / "lpt-ca").stat().st_mode) == 0o700
    for name in ("ca.key", "lab-pc.key"):
        assert stat.S_IMODE((folder / "lpt-ca" / name).stat().st_mode) == 0o600


def test_nothing_is_overwritten(lptctl: Lptctl, folder: Path) -> None:
    made(lptctl, "init")
    made(lptctl, "client", "alice")
    before = {path: path.read_bytes() for path in (folder / "lpt-ca").iterdir()}
    for arguments in (("init",), ("client", "alice"), ("server", "alice")):
        result = lptctl.fails("cert", *arguments)
        assert result.code == 1
        assert "is there already, and nothing is overwritten: remove it first" in result.err
    (folder / "lpt-ca/alice.pem").unlink()
    assert "alice.key is there already" in lptctl.fails("cert", "client", "alice").err
    assert not (folder / "lpt-ca/alice.pem").exists(), "half a pair"
    del before[folder / "lpt-ca/alice.pem"]
    assert {path: path.read_bytes() for path in (folder / "lpt-ca").iterdir()} == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("server", "lab pc"), "neither a host name nor an IP address"),
        (("server", "lpts://lab-pc"), "neither a host name nor an IP address"),
        (("server", "lab-pc", "300.1.1.1/8"), "neither a host name nor an IP address"),
        (("client", "../../etc/passwd"), "is no name"),
        (("client", ""), "is no name"),
        (("client", "ca"), "the authority's own files"),
    ],
)
def test_names_that_are_none(lptctl: Lptctl, folder: Path, arguments: tuple[str, ...], said: str) -> None:
    made(lptctl, "init")
    result = lptctl.fails("cert", *arguments)
    assert result.code == 1
    assert said in result.err
    assert len(list((folder / "lpt-ca").iterdir())) == 2


def test_without_an_authority(lptctl: Lptctl, folder: Path) -> None:
    result = lptctl.fails("cert", "server", "lab-pc")
    assert "lpt-ca/ca.pem cannot be read: No such file or directory; `lptctl cert init` makes one" in result.err
    made(lptctl, "init")
    made(lptctl, "init", "--directory", "other")
    shutil.copy("other/ca.key", "lpt-ca/ca.key")
    assert "lpt-ca/ca.key is not the key of lpt-ca/ca.pem" in lptctl.fails("cert", "server", "lab-pc").err
    (folder / "lpt-ca/ca.key").write_text("-----BEGIN PRIVATE KEY-----\n")
    assert "damaged" in lptctl.fails("cert", "server", "lab-pc").err


def test_where_it_cannot_be_written(lptctl: Lptctl, folder: Path) -> None:
    (folder / "file").write_text("")
    assert lptctl("cert", "init", "--directory", "file").code == 2
    assert "cannot be made" in lptctl.fails("cert", "init", "--directory", "file/below").err


def test_other_commands_do_not_pay_for_it() -> None:
    script = "import sys, lptctl.cli, lptctl.cert_command; assert 'cryptography' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_openssl_finds_nothing_to_complain_about(certificates: Path) -> None:
    def openssl(*arguments: str) -> str:
        run = subprocess.run(["openssl", *arguments], cwd=certificates, capture_output=True, text=True, check=False)
        return run.stdout + run.stderr

    strict = ("verify", "-x509_strict", "-CAfile", "ca.pem")
    for check in (("-verify_hostname", "localhost"), ("-verify_ip", "::1")):
        assert openssl(*strict, "-purpose", "sslserver", *check, "server.pem") == "server.pem: OK\n"
    assert openssl(*strict, "-purpose", "sslclient", "client.pem") == "client.pem: OK\n"
    assert "hostname mismatch" in openssl(*strict, "-verify_hostname", "elsewhere.example", "server.pem")
    for name, purpose in (("client", "sslserver"), ("server", "sslclient")):
        assert "nsuitable certificate purpose" in openssl(*strict, "-purpose", purpose, f"{name}.pem")
    assert "ASN1 OID: prime256v1" in openssl("x509", "-in", "server.pem", "-noout", "-text")


def test_how_long_they_last(tmp_path: Path) -> None:
    for path, days in ((authority.init(tmp_path), 3650), (authority.issue_client(tmp_path, "alice"), 825)):
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
        lasts = certificate.not_valid_after_utc - certificate.not_valid_before_utc
        assert lasts == timedelta(days=days, hours=1)
