"""In a network namespace of its own, whose loopback has an address of one link: the daemon there, and who comes to it.

python -m tests.system.on_a_link FOLDER: prints what was met, as JSON. FOLDER has certificates (tests/certificates.py).
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import trio

import lpt_client
from lpt_client import TlsOptions, blocking
from tests.certificates import section
from tests.e2e.daemons import PROJECT, serving

HOST = "fe80::7"
OTHER_URLS = ("lpt://[{host}]:{port}", "lpt://[{host}%nowhere]:{port}")


def main(folder: Path) -> None:
    """Serve, come in every way, and tell."""
    tls = "".join(f"{key} = {json.dumps(value)}\n" for key, value in section(folder, HOST).items())
    listen = ", ".join(
        f'{{ url = "{scheme}://[{HOST}%{zone}]:0", insecure = true, allow_from = ["fe80::/10"] }}'
        for scheme, zone in (("lpt", "lo"), ("lpts", "25lo"))
    )
    config = folder / "lptd.toml"
    config.write_text(f"[server]\nlisten = [{listen}]\n[tls]\n{tls}")
    told: dict[str, object] = {}
    with serving("--config", str(config), lines=2) as daemon:
        told["announced"] = daemon.lines
        plain, secure = (line.removeprefix("listening on ") for line in daemon.lines)
        for name, url in (
            ("plain", plain),
            ("RFC 6874", plain.replace("%", "%25")),
            ("number", plain.replace("lo]", "1]")),
        ):
            with blocking.open_port(url) as port, port.allocated(10):
                told[name] = port.status()["owner"]["peer"]
        with blocking.open_port(secure, tls=TlsOptions(ca=folder / "ca.pem")) as port:
            told["blocking, TLS"] = port.ping() is not None
        told["trio, TLS"] = trio.run(ping, secure, TlsOptions(ca=folder / "ca.pem"))
        tcp_port = plain.rpartition(":")[2]
        told["wrong"] = [why_not(url.format(host=HOST, port=tcp_port)) for url in OTHER_URLS]
        told["wrong, trio"] = [trio.run(why_not_trio, url.format(host=HOST, port=tcp_port)) for url in OTHER_URLS]
    told["no such interface"] = refusal("--insecure", "--listen", f"lpt://[{HOST}%nowhere]:0")
    told["not of this link"] = refusal("--insecure", "--listen", "lpt://[fe80::9%lo]:0")
    told["both families"] = refusal("--insecure", "--listen", "lpt://0.0.0.0:5378", "--listen", "lpt://[::]:5378")
    print(json.dumps(told))


async def ping(url: str, tls: TlsOptions) -> bool:
    """Over trio."""
    async with lpt_client.open_port(url, tls=tls) as port:
        return bool(await port.ping())


def why_not(url: str) -> str:
    """Of a connection that does not come about."""
    try:
        blocking.open_port(url)
    except lpt_client.ConnectFailed as exc:
        return str(exc)
    return "connected"


async def why_not_trio(url: str) -> str:
    """The same over trio."""
    try:
        async with lpt_client.open_port(url):
            return "connected"
    except lpt_client.ConnectFailed as exc:
        return str(exc)


def refusal(*options: str) -> str:
    """What a daemon says that cannot listen; nothing if it can, and is ended."""
    command = [sys.executable, "-m", "lpt_service", "serve", "--simulate", "--log-level", "error", *options]
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        if process.stdout.readline():
            process.terminate()
        return process.communicate(timeout=60)[1]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
