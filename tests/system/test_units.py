"""deploy/: systemd, sysusers and tmpfiles take the files as they are, and the sandbox is as tight as is said."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from configparser import RawConfigParser
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent.parent
DEPLOY = PROJECT / "deploy"
UNITS = DEPLOY / "systemd"
EXPOSURE_MAX = 1.6

pytestmark = [pytest.mark.system, pytest.mark.timeout(400)]


def run(*command: str) -> subprocess.CompletedProcess[str]:
    if shutil.which(command[0]) is None or os.geteuid() != 0:
        pytest.skip(f"needs root and {command[0]}")
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


@pytest.fixture
def units(tmp_path: Path) -> list[str]:
    """The units as installed, but that the command is one that is there."""
    for path in UNITS.iterdir():
        text = path.read_text().replace("/usr/bin/lptd", str(Path(sys.executable).parent / "lptd"))
        (tmp_path / path.name).write_text(text)
    return [str(tmp_path / path.name) for path in sorted(UNITS.iterdir())]


def test_systemd_has_nothing_to_say_about_the_units(units: list[str]) -> None:
    checked = run("systemd-analyze", "verify", "--man=no", *units)
    assert (checked.stdout, checked.stderr, checked.returncode) == ("", "", 0)


def test_a_mistake_would_be_found(units: list[str]) -> None:
    path = Path(units[0])
    path.write_text(path.read_text().replace("RestartSec=", "RestartSecond="))
    assert "RestartSecond" in run("systemd-analyze", "verify", "--man=no", *units).stderr


def test_the_sandbox_is_tight(units: list[str]) -> None:
    (service,) = (unit for unit in units if unit.endswith(".service"))
    threshold = f"--threshold={EXPOSURE_MAX * 10:.0f}"
    judged = run("systemd-analyze", "security", "--offline=true", "--no-pager", threshold, service)
    found = re.search(r"Overall exposure level for lptd\.service: ([\d.]+)", judged.stdout)
    assert found is not None, judged.stderr
    print(f"exposure {found[1]}")
    assert float(found[1]) <= EXPOSURE_MAX
    assert judged.returncode == 0
    listed = run("systemd-analyze", "security", "--offline=true", "--json=short", service)
    exposed = {each["json_field"] for each in json.loads(listed.stdout) if float(each["exposure"] or 0) >= 0.3}
    assert exposed <= {"PrivateNetwork", "RestrictAddressFamilies_AF_INET_INET6"}


def test_the_user_is_made_and_may_use_parallel_ports(tmp_path: Path) -> None:
    etc = tmp_path / "etc"
    etc.mkdir()
    (etc / "group").write_text("root:x:0:\nlp:x:7:\n")
    (etc / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    made = run("systemd-sysusers", f"--root={tmp_path}", str(DEPLOY / "sysusers.d/lptd.conf"))
    assert made.returncode == 0, made.stderr
    assert "lp:x:7:lpt" in (etc / "group").read_text().splitlines()
    assert re.search(r"^lpt:x:\d+:\d+:.*:/var/lib/lptd:/usr/sbin/nologin$", (etc / "passwd").read_text(), re.MULTILINE)


def test_the_folders_are_made(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/group").write_text("lpt:x:995:\nroot:x:0:\n")
    (tmp_path / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nlpt:x:995:995::/var/lib/lptd:/bin/false\n")
    made = run("systemd-tmpfiles", "--create", f"--root={tmp_path}", str(DEPLOY / "tmpfiles.d/lptd.conf"))
    assert made.returncode == 0, made.stderr
    for name, mode in (("run/lptd", 0o755), ("etc/lptd/tls", 0o750)):
        assert (tmp_path / name).stat().st_mode & 0o777 == mode


def test_what_must_not_be_in_the_sandbox() -> None:
    """Peers on Unix sockets would read as nobody; the port would be hidden; the socket's group would be lost."""
    unit = RawConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(UNITS / "lptd.service")
    assert not {"PrivateUsers", "PrivateDevices", "RuntimeDirectory", "DynamicUser"} & set(unit["Service"])
    assert unit["Service"]["DeviceAllow"] == "char-ppdev rw"
