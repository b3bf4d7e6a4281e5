"""A client process that gets into a state, says so, and waits to be killed.

python -m tests.e2e.victim HOST TCP_PORT STATE [PORT]
"""

from __future__ import annotations

import sys
import time

import msgpack

from tests.e2e.client import ALLOCATE, INTERNAL, PULSE, RawClient, pulse


def main() -> None:
    """Say "ready" once the daemon has taken the state in."""
    host, tcp_port, state, *port = sys.argv[1:]
    client = RawClient((host, int(tcp_port)))
    if state != "before hello":
        client.hello(client=f"victim {state}", **({"port": port[0]} if port else {}))
    if state in ("owning", "in a pulse", "mid-frame", "all at once"):
        client.allocate()
    if state in ("connected", "all at once"):
        client.connect_interrupt(1, deferred=2)
        client.connect_interrupt(3)
    if state == "waiting":
        client.control(ALLOCATE)
        client.notification("queued")
    if state in ("in a pulse", "all at once"):
        client.control(PULSE, pulse(0xF0, 0x05, 10_000_000), 16)
    if state == "not reading":
        client.allocate()
        client.send(*([0, msgid, "status", []] for msgid in range(1000, 2000)))
    if state in ("mid-frame", "all at once"):
        client.socket.sendall(msgpack.packb([0, 99, INTERNAL, [ALLOCATE, b"x" * 1000, 0]])[:500])
    elif state not in ("before hello", "not reading"):
        client.call("ping")
    print("ready", flush=True)
    time.sleep(600)


if __name__ == "__main__":
    main()
