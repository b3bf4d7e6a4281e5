"""Load balancers, systemd, `nc -z`: they connect and leave, all day long, and the log says nothing of it."""

from __future__ import annotations

import json
import socket
import struct
from pathlib import Path

from tests.certificates import section
from tests.e2e.client import Address, RawClient
from tests.e2e.daemons import eventually, serving

CHECKS = 5
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing resets


def connect(address: Address) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
    sock.settimeout(40)
    sock.connect(address)
    return sock


def test_who_connects_and_leaves_has_no_line_and_is_counted(certificates: Path, tmp_path: Path) -> None:
    listen = ["lpt://127.0.0.1:0", "lpts://127.0.0.1:0", f"lpt+unix://{tmp_path}/lptd.sock"]
    tls = "".join(f"{name} = {json.dumps(value)}\n" for name, value in section(certificates).items())
    path = tmp_path / "lptd.toml"
    path.write_text(f"[server]\nlisten = {json.dumps(listen)}\n[tls]\n{tls}")
    with serving("--config", str(path), lines=len(listen)) as daemon:
        before = daemon.log()
        witness = RawClient(daemon.addresses[0]).hello(client="witness")
        for address in daemon.addresses * CHECKS:
            connect(address).close()
            with connect(address) as sock:
                sock.shutdown(socket.SHUT_WR)
                while sock.recv(100):  # TLS's alert
                    pass
            sock = connect(address)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            sock.close()
        expected = 3 * CHECKS * len(listen)
        # One that is reset before it is accepted never was a connection.
        eventually(lambda: expected * 2 // 3 <= witness.call("status")["left_silently"] <= expected)
        lines = daemon.log().removeprefix(before).splitlines()
        assert [line for line in lines if "witness" not in line and "(anonymous): connected from" not in line] == []
        assert len(lines) == 2, "those of the witness"

        for address in daemon.addresses:
            with connect(address) as sock:
                sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
                while sock.recv(100):
                    pass
        eventually(lambda: daemon.log().count("closing: not a frame") == 2 and "does not speak TLS" in daemon.log())
        witness.close()
