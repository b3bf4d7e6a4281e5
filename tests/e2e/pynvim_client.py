"""A process that talks to the daemon through pynvim's session alone: `python -m tests.e2e.pynvim_client PORT`.

A process of its own, because that session leaves its socket to the end of the process. Prints what it was told, as
lines of JSON.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from pynvim.msgpack_rpc import tcp_session

from tests.e2e.client import (
    ALLOCATE,
    CONNECT_INTERRUPT,
    DATA,
    DEVICE,
    DISCONNECT_INTERRUPT,
    FREE,
    INTERNAL,
    READ_PORT_UCHAR,
    WRITE_PORT_UCHAR,
    routine,
)


def main() -> None:
    """Own the port, interrupt itself, wait until somebody waits, free."""
    session = tcp_session("127.0.0.1", int(sys.argv[1]))
    say("port", session.request("hello", {"protocol": 1, "client": "pynvim"})["port"])
    say("ping", len(session.request("ping")))
    say("allocate", session.request(INTERNAL, ALLOCATE, b"", 8)[0])
    say("owner", session.request("status")["owner"]["client"])
    say("connect", session.request(INTERNAL, CONNECT_INTERRUPT, routine(1), 40)[0])
    for level in (b"\x00", b"\x08"):
        say("write", session.request(DEVICE.encode(), WRITE_PORT_UCHAR, DATA + level, 0)[0])
    say("told", told(session))
    say("told", told(session)[:2])
    say("read", session.request(INTERNAL, READ_PORT_UCHAR, DATA, 1)[1][0])
    say("disconnect", session.request(INTERNAL, DISCONNECT_INTERRUPT, routine(1), 8)[0])
    say("told", told(session))
    say("free", session.request(INTERNAL, FREE, b"", 0)[0])
    try:
        session.request(INTERNAL, FREE, b"", 0)
    except Exception as exc:  # its error_wrapper's own
        say("error", str(exc))


def told(session: Any) -> list[Any]:
    """The next notification; of an interrupt, its name and count."""
    _, name, params = session.next_message()
    return [name, params[2]] if name == "interrupt" else [name, *params[:1]]


def say(*what: Any) -> None:
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    main()
