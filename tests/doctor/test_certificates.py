"""What `lptd doctor` says of the certificates, on a machine made of files."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lpt_service.doctor.checks import Finding, examine
from lpt_service.doctor.machine import Machine
from lpt_service.server import tls_gate
from tests.doctor.test_doctor import LP, OTHER, FakeMachine

CONFIG = """
[server]
listen = ["lpts://127.0.0.1:5378", "lpt+unix:///run/lptd/lptd.sock"]
[tls]
client_certificate = "required"
"""
FOLDER = "/etc/lptd/tls"


@pytest.fixture
def machine(tmp_path: Path, certificates: Path) -> FakeMachine:
    machine = FakeMachine(tmp_path)
    machine.set_config(CONFIG)
    machine.write("/etc/group", f"lp:x:{OTHER}:lpt\nlpt:x:{LP}:lpt\n")  # the certificates are of the daemon's group
    install(machine, certificates, "server")
    machine.path(f"{FOLDER}/ca.pem").write_bytes((certificates / "ca.pem").read_bytes())
    machine.path(f"{FOLDER}/ca.pem").chmod(0o640)
    return machine


def install(machine: FakeMachine, certificates: Path, name: str, suffixes: tuple[str, ...] = (".pem", ".key")) -> None:
    for suffix in suffixes:
        path = machine.path(f"{FOLDER}/server{suffix}")
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(certificates / f"{name}{suffix}", path)
        path.chmod(0o640)


def told(machine: FakeMachine) -> list[Finding]:
    return [finding for finding in examine(Machine(machine.root)) if finding.check == "tls"]


def test_good_certificates(machine: FakeMachine) -> None:
    (finding,) = told(machine)
    assert finding.is_well
    assert re.fullmatch(
        r"/etc/lptd/tls/server\.pem is good for another 82[45] days, until 20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ",
        finding.what,
    )


def test_nobody_looks_at_them_without_tls(machine: FakeMachine) -> None:
    machine.set_config("")
    machine.remove(f"{FOLDER}/server.key")
    assert told(machine) == []


def test_the_authority_of_clients_is_needed_only_to_check_them(machine: FakeMachine) -> None:
    machine.remove(f"{FOLDER}/ca.pem")
    assert [each.what.partition(":")[0] for each in told(machine)] == ["tls.client_ca"]
    machine.set_config(CONFIG.replace("required", "none"))
    assert all(each.is_well for each in told(machine))


Change = Callable[[FakeMachine, Path], object]
CASES: dict[str, tuple[Change, str, str]] = {
    "no key": (
        lambda machine, _: machine.remove(f"{FOLDER}/server.key"),
        "tls.key: /etc/lptd/tls/server.key cannot be read: No such file",
        "lptctl cert server",
    ),
    "the key of another": (
        lambda machine, certificates: install(machine, certificates, "server2", (".key",)),
        "tls.key: /etc/lptd/tls/server.key is not the key of /etc/lptd/tls/server.pem",
        "lptctl cert server",
    ),
    "expired": (
        lambda machine, certificates: install(machine, certificates, "expired"),
        "/etc/lptd/tls/server.pem has expired",
        "systemctl reload lptd",
    ),
    "not valid yet": (
        lambda machine, certificates: install(machine, certificates, "future"),
        "/etc/lptd/tls/server.pem is not valid before 20",
        "systemctl reload lptd",
    ),
    "the authority of clients is not valid yet": (
        lambda machine, certificates: machine.path(f"{FOLDER}/ca.pem").write_bytes(
            (certificates / "future" / "ca.pem").read_bytes()
        ),
        "/etc/lptd/tls/ca.pem is not valid before 20",
        "systemctl reload lptd",
    ),
    "not for the daemon": (
        lambda machine, _: machine.path(f"{FOLDER}/server.pem").chmod(0o600),
        "the user lpt may not read /etc/lptd/tls/server.pem",
        "chown root:lpt /etc/lptd/tls/server.pem; chmod 640",
    ),
    "a key for everybody": (
        lambda machine, _: machine.path(f"{FOLDER}/server.key").chmod(0o644),
        "everybody may read /etc/lptd/tls/server.key",
        "chmod 640 /etc/lptd/tls/server.key",
    ),
}


@pytest.mark.parametrize(("change", "what", "advice"), CASES.values(), ids=CASES)
def test_what_is_wrong_is_told_with_its_remedy(
    machine: FakeMachine, certificates: Path, change: Change, what: str, advice: str
) -> None:
    change(machine, certificates)
    (finding,) = told(machine)
    assert not finding.is_well
    assert what in finding.what
    assert str(machine.root) not in finding.what
    assert advice in finding.advice


def test_one_that_is_about_to_expire(machine: FakeMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls_gate, "EXPIRY_WARNING_DAYS", 900)
    (finding,) = told(machine)
    assert not finding.is_well
    assert re.fullmatch(r"/etc/lptd/tls/server\.pem expires in 82[45] days, at 20[-0-9:TZ]+", finding.what)


def test_an_ordinary_user_may_not_look(machine: FakeMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    key = str(machine.path(f"{FOLDER}/server.key"))
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != key and access(path, mode))
    assert told(machine) == [Finding("tls", True, "/etc/lptd/tls/server.key: only root can have a look")]
