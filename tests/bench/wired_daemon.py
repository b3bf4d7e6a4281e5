"""`lptd serve` with somebody else's eventfd as the interrupt line of its simulated port.

An interrupt reaches the daemon as one from hardware does: a descriptor becomes readable. Nothing of the daemon is
changed; the eventfd of the simulated port is replaced, under the same number, before anybody listens.

    python -m tests.bench.wired_daemon CONFIG EVENTFD [separate]

`separate`: every interrupt that waits is logged as an entry of its own, as if the port had not counted them together.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import trio

from lpt_service.config import load
from lpt_service.core.event_log import EventLog
from lpt_service.server.daemon import Daemon


class _SeparateLog(EventLog):
    def append(self, count: int, timestamp_ns: int, status: int, control: int) -> None:
        """Write down each of `count` interrupts by itself."""
        for _ in range(count):
            super().append(1, timestamp_ns, status, control)


async def main() -> None:
    """Serve until SIGTERM."""
    daemon = Daemon(load(Path(sys.argv[1])), announce=lambda url: print(f"listening on {url}", flush=True))
    async with trio.open_nursery() as nursery:
        await nursery.start(daemon.handle_signals)
        nursery.start_soon(serve, daemon, nursery.cancel_scope)


async def serve(daemon: Daemon, scope: trio.CancelScope) -> None:
    """Run the daemon, put the line in its place before a client can connect an interrupt."""
    async with trio.open_nursery() as nursery:
        await nursery.start(daemon.run)
        (worker,) = daemon.workers.values()
        os.dup2(int(sys.argv[2]), worker.driver.port.fileno())
        if "separate" in sys.argv:
            registry = worker.driver.registry
            registry.log = _SeparateLog(registry.log.capacity, registry.log.stream)
    scope.cancel()


if __name__ == "__main__":
    trio.run(main)
