"""The emulated machine: QEMU's command line, and what its monitor tells."""

from __future__ import annotations

import json
import re
import shutil
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, TextIO

from tests.vm.host import CannotBuildError
from tests.vm.image import Image

QEMU: Final = "qemu-system-x86_64"
MEMORY_MIB: Final = 512
PROCESSORS: Final = 2

# The last one wins, so that callers can replace one.
# - panic=-1, with -no-reboot: a panic ends QEMU at once.
# - noapic: with QEMU's IO-APIC every write to the port raises an interrupt that was not acknowledged once more; with
#   the older controller an interrupt is an edge, as in a PC.
# - clocksource=hpet: on a busy host the kernel gets the TSC's rate wrong, and then all time-outs in the guest.
_KERNEL_OPTIONS: Final = (
    "console=ttyS0 root=/dev/vda rw quiet panic=-1 noapic mitigations=off nokaslr net.ifnames=0"
    " tsc=unstable clocksource=hpet systemd.show_status=0"
)


def machine_command(
    image: Image, venv: Path, folder: Path, forwarded: Sequence[int], kernel_options: str, *, on_terminal: bool = False
) -> list[str]:
    """The command that runs a guest.

    Args:
        image: what it boots.
        venv: the image of its Python packages.
        folder: has `payload.ext4` and `share`, and gets `console`, `pc-port` and `monitor` (a socket).
        forwarded: TCP ports of the guest that the host reaches on ports of 127.0.0.1 that are free.
        kernel_options: more of the kernel's command line.
        on_terminal: the console is the terminal, with a shell; otherwise the file.

    Raises:
        CannotBuildError: QEMU is not installed.
    """
    if shutil.which(QEMU) is None:
        raise CannotBuildError(f"{QEMU} is not installed; tests/vm/packages.sh installs what is needed")
    console = "mon:stdio" if on_terminal else f"file:{folder}/console"
    options = _KERNEL_OPTIONS + ("" if on_terminal else " systemd.getty_auto=no")
    ports = "".join(f",hostfwd=tcp:127.0.0.1:0-:{port}" for port in forwarded)
    return [
        *("setpriv", "--pdeathsig", "KILL"),  # it ends with who started it, however that one ends
        *(QEMU, "-accel", "tcg,thread=multi", "-cpu", "max", "-M", "pc,usb=off"),
        *("-m", str(MEMORY_MIB), "-smp", str(PROCESSORS)),
        *("-nodefaults", "-display", "none", "-vga", "none", "-no-reboot", "-serial", console),
        *("-kernel", str(image.kernel), "-initrd", str(image.initrd), "-append", f"{options} {kernel_options}"),
        *_disk("root", image.root),
        *_disk("payload", folder / "payload.ext4"),
        *_disk("venv", venv),
        *("-netdev", f"user,id=net,restrict=on{ports}", "-device", "virtio-net-pci,netdev=net,romfile="),
        *("-virtfs", f"local,path={folder}/share,mount_tag=share,security_model=none"),
        *("-device", "virtio-rng-pci"),
        *("-chardev", f"file,id=port,path={folder}/pc-port", "-device", "isa-parallel,chardev=port"),
        *("-qmp", f"unix:{folder}/monitor,server=on,wait=off"),
    ]


def _disk(name: str, image: Path) -> list[str]:
    """A disk that the guest may write to; what it writes is forgotten."""
    drive = f"if=none,id={name},file={image},format=raw,snapshot=on"
    return ["-drive", drive, "-device", f"virtio-blk-pci,drive={name}"]


def forwarded_ports(monitor: Path, timeout_s: float) -> dict[int, int] | None:
    """The host's port of each TCP port of the guest that is forwarded, as QEMU's monitor tells.

    None: QEMU is not up yet, or has ended.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(timeout_s)
        try:
            connection.connect(str(monitor))
            with connection.makefile("rw", encoding="utf-8") as lines:
                lines.readline()  # the greeting
                execute(lines, "qmp_capabilities")
                shown = execute(lines, "human-monitor-command", **{"command-line": "info usernet"})
        except (FileNotFoundError, ConnectionError):
            return None
    forwards = re.findall(r"TCP\[HOST_FORWARD\]\s+\d+\s+\S+\s+(\d+)\s+\S+\s+(\d+)", shown)
    return {int(guest_port): int(host_port) for host_port, guest_port in forwards}


def execute(lines: TextIO, command: str, **arguments: str) -> Any:
    """Execute a command of QMP; what it returns."""
    lines.write(json.dumps({"execute": command, "arguments": arguments}))
    lines.flush()
    for line in lines:
        answer = json.loads(line)
        if "return" in answer:
            return answer["return"]
        if "error" in answer:
            raise ValueError(f"{command}: {answer['error']}")
    raise ConnectionError("QEMU ended")
