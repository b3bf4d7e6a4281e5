"""What the service's sandbox lets a process do: run in a copy of the unit, by Debian's Python and nothing else.

Prints one line of JSON: each attempt, and whether it succeeded (true) or how it was refused (the error's name).
"""

import ctypes
import errno
import fcntl
import json
import mmap
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

PPCLAIM = 0x708B
PPEXCL = 0x708F
PPRSTATUS = 0x80017081
CLONE_NEWUSER = 0x10000000
PTRACE_ATTACH = 16
_libc = ctypes.CDLL(None, use_errno=True)


def use_port(path: str) -> None:
    descriptor = os.open(path, os.O_RDWR)
    fcntl.ioctl(descriptor, PPEXCL)
    fcntl.ioctl(descriptor, PPCLAIM)
    fcntl.ioctl(descriptor, PPRSTATUS, b"\0")


def call(name: str, *arguments: object) -> None:
    if getattr(_libc, name)(*arguments) == -1:
        raise OSError(ctypes.get_errno(), name)


def listen_unix() -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind("/run/lptd/probe.sock")
        sock.listen()
    Path("/run/lptd/probe.sock").unlink()


def see_process(pid: int) -> None:
    Path(f"/proc/{pid}/comm").read_text()


def write(path: str) -> None:
    Path(path).write_text("")
    Path(path).unlink()


ATTEMPTS: dict[str, Callable[[], object]] = {
    # What it needs.
    "use /dev/parport1": lambda: use_port("/dev/parport1"),
    "read the configuration": lambda: Path("/etc/lptd/config.toml").read_text(),
    "write to the state directory": lambda: write("/var/lib/lptd/probe"),
    "listen on TCP": lambda: socket.create_server(("127.0.0.1", 0)).close(),
    "listen on a Unix socket": listen_unix,
    # What it does not.
    "read /home": lambda: os.listdir("/home"),
    "read /root": lambda: os.listdir("/root"),
    "write to /etc": lambda: write("/etc/lptd/probe"),
    "write to /usr": lambda: write("/usr/lib/lptd/probe"),
    "write to /var": lambda: write("/var/lib/probe"),
    "read a disk": lambda: os.open("/dev/vda", os.O_RDONLY),
    "open memory": lambda: os.open("/dev/mem", os.O_RDONLY),
    "open a device that anybody may": lambda: os.open("/dev/vparport", os.O_RDWR),
    "open a terminal": lambda: os.open("/dev/ttyS0", os.O_RDWR | os.O_NOCTTY),
    "open a raw socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP),
    "open a packet socket": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW),
    "open a netlink socket": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
    "become root": lambda: os.setuid(0),
    "make a namespace": lambda: call("unshare", CLONE_NEWUSER),
    "mount": lambda: call("mount", b"none", b"/tmp", b"tmpfs", 0, None),
    "set the clock": lambda: time.clock_settime(time.CLOCK_REALTIME, time.time()),
    "set the host's name": lambda: socket.sethostname("probe"),
    "see init": lambda: see_process(1),
    "trace init": lambda: call("ptrace", PTRACE_ATTACH, 1, None, None),
    "signal init": lambda: os.kill(1, 0),
    "read ports of the machine": lambda: Path("/proc/ioports").read_text(),
    "have memory to write and run": lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC),
    "be scheduled in real time": lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)),
    "make a file that sets its user": lambda: os.chmod(os.open("/tmp/s", os.O_CREAT), 0o4755),  # noqa: S103 - is to be refused
}


def attempt(action: Callable[[], object]) -> bool | str:
    try:
        action()
    except OSError as exc:
        return errno.errorcode.get(exc.errno or 0, str(exc))
    return True


if __name__ == "__main__":
    fields = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
    shown = {name: fields[name] for name in ("CapEff", "CapBnd", "NoNewPrivs", "Seccomp")}
    print(json.dumps({**{name: attempt(action) for name, action in ATTEMPTS.items()}, **shown}))
