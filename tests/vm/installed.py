"""lptd as its Debian package installs it in a guest, which has no network."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from tests.vm.daemon import CARD
from tests.vm.guest import TIMEOUT_S, Guest, Result
from tests.vm.host import PROJECT, run_program

TOKEN: Final = "a secret"
# Two ports, and nobody gets in without a token but the administrator.
CONFIG: Final = f"""{CARD}
[[port]]
name = "SIMULATED"
enable_connect_interrupt = true
"""
# Goes with `listen_everywhere`: the daemon must be told in words that the host may come in.
EVERYWHERE: Final = """
[server]
listen = ["lpt+unix:///run/lptd/lptd.sock", {url = "lpt://0.0.0.0:5378", insecure = true}]
"""
TOKENS: Final = """
[[token]]
name = "the test"
sha256 = "{digest}"
"""

BUILD_TIMEOUT_S: Final = 1200.0
INSTALL_TIMEOUT_S: Final = 900.0  # dpkg unpacks two thousand files
# The project's own environment is first on the path of a guest: here its programs are not wanted.
_PATH: Final = "export PATH=/usr/sbin:/usr/bin:/sbin:/bin; "


def build_package(folder: Path) -> Path:
    """Build the package; its file in `folder`."""
    command = [sys.executable, "deploy/debian/build.py", str(folder)]
    environment = {**os.environ, "DEB_REVISION": "1"}
    done = subprocess.run(
        command, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=BUILD_TIMEOUT_S
    )
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


def later_revision(package: Path, revision: int, folder: Path) -> Path:
    """The same package as another revision, in `folder`: to build each anew takes long."""
    result = folder / package.name.replace("-1~", f"-{revision}~")
    with tempfile.TemporaryDirectory() as tree:
        run_program("dpkg-deb", "--raw-extract", package, tree)
        control = Path(tree, "DEBIAN/control")
        text, count = re.subn(r"^(Version: .*)-1~", rf"\g<1>-{revision}~", control.read_text(), flags=re.MULTILINE)
        assert count == 1
        control.write_text(text)
        run_program("dpkg-deb", "--root-owner-group", "-Zgzip", "--build", tree, result)
    return result


class Installed:
    """The service in a guest. Every method may raise GuestError."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest

    def run(self, command: str, timeout_s: float = TIMEOUT_S) -> Result:
        """As `Guest.run`, with the system's programs."""
        return self.guest.run(_PATH + command, timeout_s)

    def check(self, command: str, timeout_s: float = TIMEOUT_S) -> str:
        """As `Guest.check`, with the system's programs."""
        return self.guest.check(_PATH + command, timeout_s)

    def install(self, package: Path) -> str:
        """Install or upgrade; what dpkg and the package's scripts said."""
        shutil.copy(package, self.guest.share)
        return self.check(f"dpkg --force-unsafe-io --force-confold -i /srv/share/{package.name}", INSTALL_TIMEOUT_S)

    def configure(self, text: str) -> None:
        """Write the configuration, with the owner and the mode that it has."""
        (self.guest.share / "config.toml").write_text(text, encoding="utf-8")
        self.check("cat /srv/share/config.toml >/etc/lptd/config.toml")

    def listen_everywhere(self) -> None:
        """Have lptd.socket let in the host, too."""
        self.check(
            "mkdir -p /etc/systemd/system/lptd.socket.d\n"
            "printf '[Socket]\\nListenStream=\\nListenStream=/run/lptd/lptd.sock\\nListenStream=5378\\n'"
            " >/etc/systemd/system/lptd.socket.d/listen.conf\n"
            "systemctl daemon-reload; systemctl stop lptd.service; systemctl restart lptd.socket"
        )

    def show(self, name: str, unit: str = "lptd.service") -> str:
        """A property of a unit."""
        return self.check(f"systemctl show --property={name} --value {unit}").strip()

    @property
    def pid(self) -> int:
        """Of the daemon; 0: it does not run."""
        return int(self.show("MainPID"))

    def status(self, port: str) -> dict[str, Any]:
        """What `lptctl status` tells root."""
        url = f"lpt+unix:///run/lptd/lptd.sock#{port}"
        report: dict[str, Any] = json.loads(self.check(f"lptctl status --json --url '{url}'"))
        return report

    def wait_for(self, condition: str, timeout_s: float = TIMEOUT_S) -> None:
        """Wait until a command of bash ends well."""
        self.check(f"until {condition}; do sleep 0.1; done", timeout_s)

    def journal(self, *matches: str) -> list[dict[str, Any]]:
        """The daemon's records with these fields."""
        return [json.loads(line) for line in self.log("lptd", "--output=json", *matches).splitlines()]

    def log(self, unit: str = "lptd", *options: str) -> str:
        """What the journal has of a unit."""
        shown = " ".join(("journalctl --quiet --output=cat", f"--unit={unit}.service", *options))
        return self.check(f"journalctl --sync && {shown}")

    def descriptors(self) -> int:
        """How many files the daemon has open."""
        return int(self.check(f"ls /proc/{self.pid}/fd | wc -l"))

    def memory_kib(self) -> int:
        """The daemon's resident memory."""
        found = re.search(r"VmRSS:\s+(\d+) kB", self.check(f"cat /proc/{self.pid}/status"))
        assert found is not None
        return int(found[1])
