"""A shell in the guest: `make vm-shell`. `poweroff` ends it, and so does Ctrl-A X."""

from __future__ import annotations

import secrets
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.vm.guest import DAEMON_PORT
from tests.vm.host import CannotBuildError
from tests.vm.image import operating_system
from tests.vm.machine import forwarded_ports, machine_command
from tests.vm.payload import make_payload, python_environment

_START_TIMEOUT_S = 10.0
_POLL_S = 0.05


def main() -> None:
    """Boot a guest on this terminal; returns when it is down."""
    print("building the guest, unless it lies in the cache …", flush=True)
    with tempfile.TemporaryDirectory(prefix="lpt-vm-") as name:
        folder = Path(name)
        for part in ("share", "payload"):
            (folder / part).mkdir()
        image, venv = operating_system(), python_environment()
        make_payload(folder / "payload.ext4", folder / "payload", secrets.token_hex())
        command = machine_command(image, venv, folder, [DAEMON_PORT], "", on_terminal=True)
        with subprocess.Popen(command) as machine:
            deadline = time.monotonic() + _START_TIMEOUT_S
            while (ports := forwarded_ports(folder / "monitor", _START_TIMEOUT_S)) is None:
                if machine.poll() is not None or time.monotonic() > deadline:
                    sys.exit("QEMU does not start")
                time.sleep(_POLL_S)
            _tell_ways_in(folder, ports[DAEMON_PORT])
            machine.wait()


def _tell_ways_in(folder: Path, host_port: int) -> None:
    lines = [
        f"port {DAEMON_PORT} of the guest is 127.0.0.1:{host_port} here",
        f"/srv/share of the guest is {folder}/share here",
        f"bytes that /dev/parport0 is given with a strobe are in {folder}/pc-port",
        "to end: poweroff, or Ctrl-A X",
    ]
    sys.stdout.write("".join(f"{line}\r\n" for line in lines))  # QEMU has the terminal in raw mode
    sys.stdout.flush()


if __name__ == "__main__":
    try:
        main()
    except CannotBuildError as exc:
        sys.exit(str(exc))
