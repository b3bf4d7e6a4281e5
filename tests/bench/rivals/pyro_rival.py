"""Pyro5: its daemon (a thread for each connection), its proxy. One call with one integer, which gives one integer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import Pyro5.api


@Pyro5.api.expose
class Port:
    """What is called."""

    def read(self, offset: int) -> int:
        """A register."""
        return 0x78 + offset


@contextmanager
def client(port: int) -> Iterator[Callable[[], object]]:
    """A connection; what it gives makes one round trip."""
    with Pyro5.api.Proxy(f"PYRO:port@127.0.0.1:{port}") as proxy:
        read = proxy.read
        yield lambda: read(1)


def main() -> None:
    """Serve until ended."""
    daemon = Pyro5.api.Daemon(host="127.0.0.1", port=0)
    daemon.register(Port, objectId="port")
    print("ready", daemon.locationStr.rpartition(":")[2], flush=True)
    daemon.requestLoop()


if __name__ == "__main__":
    main()
