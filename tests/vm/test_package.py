"""The Debian package in a guest without a network: installed, upgraded while idle and while owned, removed, purged.

One guest for all, and the tests are in the order of a package's life.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vm.daemon import SAFE_DATA
from tests.vm.guest import Guest
from tests.vm.installed import CONFIG, TOKEN, TOKENS, Installed, later_revision

pytestmark = [pytest.mark.system, pytest.mark.timeout(1800)]


class Packages:
    """Three revisions of the package, each an upgrade of the one before."""

    def __init__(self, first: Path, folder: Path) -> None:
        self.first = first
        self.second, self.third = (later_revision(first, number, folder) for number in (2, 3))


@pytest.fixture(scope="module")
def packages(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Packages:
    return Packages(package, tmp_path_factory.mktemp("packages"))


@pytest.fixture(scope="module")
def installed(packages: Packages) -> Iterator[Installed]:
    with Guest() as guest:
        service = Installed(guest)
        service.install(packages.first)
        yield service


def test_it_runs_and_starts_at_boot(installed: Installed) -> None:
    assert installed.check("systemctl is-enabled lptd.socket lptd.service").split() == ["enabled", "enabled"]
    assert installed.check("systemctl is-active lptd.socket lptd.service").split() == ["active", "active"]
    assert installed.check(f"cat /proc/{installed.pid}/comm") == "lptd\n"  # the wrapper has become the daemon
    assert installed.check("stat -c '%U:%G %a' /etc/lptd/config.toml") == "root:lpt 640\n"
    assert installed.status("LPT1")["owner"] is None


def test_it_has_its_libraries_with_it(installed: Installed) -> None:
    told = installed.check("/usr/lib/lptd/restart-when-idle; lptctl --version; lptd --version")
    assert "lptd, version" in told
    script = (
        "import sys; sys.path.insert(0, '/usr/lib/lptd/python')\n"
        "import lpt_client.blocking, lpt_service.server.daemon, msgpack, pydantic, trio, click, rich\n"
        "print({each.__file__.rpartition('/python/')[0] for each in (msgpack, pydantic, trio, click, rich)})"
    )
    assert installed.check(f'/usr/bin/python3 -IBc "{script}"') == "{'/usr/lib/lptd'}\n"
    changed = installed.run("dpkg --verify lptd").output.splitlines()
    assert [line for line in changed if "/usr/share/doc/" not in line] == []  # the guest takes no documentation


def test_the_doctor_finds_nothing_wrong_and_then_the_printer_driver(installed: Installed) -> None:
    installed.configure(CONFIG)
    installed.check("systemctl restart lptd")
    told = installed.check("lptd doctor")
    assert "WRONG" not in told
    assert f"port CARD: /dev/parport1, held by lptd (process {installed.pid})" in told
    installed.check("systemctl stop lptd.socket lptd.service; modprobe lp")
    found = installed.run("lptd doctor --json")
    assert found.exit_code == 1
    wrong = {each["check"]: each["what"] for each in json.loads(found.output) if not each["is_well"]}
    assert wrong["port CARD"] == "the printer driver lp holds /dev/parport1"
    assert wrong["service"] == "lptd does not run"
    installed.check("rmmod lp; systemctl start lptd.socket lptd.service; lptd doctor")


def test_an_upgrade_of_an_idle_daemon_restarts_it(installed: Installed, packages: Packages) -> None:
    installed.configure(CONFIG + TOKENS.format(digest=hashlib.sha256(TOKEN.encode()).hexdigest()))
    installed.check("systemctl restart lptd")
    before = installed.pid
    told = installed.install(packages.second)
    assert "lptd: " not in told.replace("\nSetting up lptd", "")
    assert installed.pid not in (0, before)
    assert installed.check("cat /etc/lptd/config.toml") == (installed.guest.share / "config.toml").read_text()
    assert installed.check("stat -c '%U:%G %a' /etc/lptd/config.toml") == "root:lpt 640\n"
    assert installed.check("lptd doctor")


def test_an_upgrade_waits_while_a_port_is_owned(installed: Installed, packages: Packages) -> None:
    before = installed.pid
    owner = f"systemd-run --quiet --unit=owner --property=SuccessExitStatus=143 --setenv=LPT_TOKEN='{TOKEN}' lptctl run"
    installed.check(f"{owner} --url 'lpt+unix:///run/lptd/lptd.sock#CARD' -- sleep 1000")
    installed.wait_for("systemctl show --property=StatusText lptd | grep -q 'CARD: owned'")
    told = [line for line in installed.install(packages.third).splitlines() if line.startswith("lptd: ")]
    assert len(told) == 1, told
    assert told[0].startswith("lptd: in use: CARD (lptctl run sleep[")
    assert told[0].endswith("]); it is restarted when no port is (systemctl status lptd-restart-when-idle)")
    assert "a restart is already waiting" in installed.check("/usr/lib/lptd/restart-when-idle")
    assert "a new version is installed" in installed.check("lptd doctor")
    # The old daemon serves on, with files that are another version's.
    assert installed.pid == before
    assert installed.status("CARD")["owner"]["client"].startswith("lptctl run sleep")
    installed.check("systemctl reload lptd")
    assert installed.check("lptctl read status --url 'lpt+unix:///run/lptd/lptd.sock#CARD'")
    installed.check("systemctl stop owner")
    installed.wait_for(f'[ "$(systemctl show --property=MainPID --value lptd)" -gt 0 ] && [ ! -e /proc/{before} ]')
    installed.wait_for("! systemctl --quiet is-active lptd-restart-when-idle")
    assert installed.pid not in (0, before)
    assert installed.check("systemctl --failed --quiet --plain --no-legend") == ""
    assert "Traceback" not in installed.log()


def test_who_forbids_restarts_is_heeded(installed: Installed) -> None:
    before = installed.pid
    installed.check("printf '#!/bin/sh\\nexit 101\\n' >/usr/sbin/policy-rc.d; chmod +x /usr/sbin/policy-rc.d")
    installed.check("/usr/lib/lptd/restart-when-idle; rm /usr/sbin/policy-rc.d")
    assert installed.pid == before
    installed.check("/usr/lib/lptd/restart-when-idle")
    assert installed.pid not in (0, before)


def test_a_daemon_that_cannot_be_asked_is_left_alone(installed: Installed) -> None:
    before = installed.pid
    told = installed.check("mv /run/lptd/lptd.sock /run/lptd/away; /usr/lib/lptd/restart-when-idle")
    assert "NOT restarted" in told
    installed.check("mv /run/lptd/away /run/lptd/lptd.sock")
    assert installed.pid == before


def test_removed_it_keeps_its_configuration_and_installed_again_it_runs(
    installed: Installed, packages: Packages
) -> None:
    installed.check("dpkg --force-unsafe-io -r lptd")
    assert installed.run("test -e /usr/lib/lptd -o -e /usr/bin/lptd").exit_code == 1
    assert installed.check("grep -c safe_data /etc/lptd/config.toml") == "1\n"
    assert installed.check("ls /var/lib/lptd") != ""
    assert installed.run("systemctl is-active lptd.socket lptd.service").output.split() == ["inactive"] * 2
    installed.install(packages.third)
    assert installed.status("CARD")["owner"] is None
    assert f"data {SAFE_DATA:#x}" in installed.check("cat /dev/vparport")


def test_purged_it_leaves_its_user_and_nothing_else(installed: Installed) -> None:
    installed.check("dpkg --force-unsafe-io --purge lptd")
    search = "find / -xdev -name '*lptd*' -not -path '/srv/*' -not -path '/proc/*' -not -path '/tmp/*'; ls /run"
    left = installed.check(search).split()
    assert [path for path in left if "lptd" in path] == []
    assert installed.check("id lpt").startswith("uid=")
    assert installed.check("systemctl --failed --quiet --plain --no-legend") == ""
