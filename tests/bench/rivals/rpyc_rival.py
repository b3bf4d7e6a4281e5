"""RPyC: a threaded server, a classic blocking client. One call with one integer, which gives one integer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import rpyc
from rpyc.utils.server import ThreadedServer


class Port(rpyc.Service):  # type: ignore[misc]  # rpyc ships no types
    """What is called."""

    def exposed_read(self, offset: int) -> int:
        """A register."""
        return 0x78 + offset


@contextmanager
def client(port: int) -> Iterator[Callable[[], object]]:
    """A connection; what it gives makes one round trip."""
    connection = rpyc.connect("127.0.0.1", port)
    read = connection.root.read
    try:
        yield lambda: read(1)
    finally:
        connection.close()


def main() -> None:
    """Serve until ended."""
    server = ThreadedServer(Port(), hostname="127.0.0.1", port=0)
    print("ready", server.port, flush=True)
    server.start()


if __name__ == "__main__":
    main()
