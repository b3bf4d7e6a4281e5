"""A client of the SDK at the far end of a link, that comes back to its session after its connection broke.

    python -m tests.system.returning HOST TCP_PORT

It owns the port, says by which grant, and from then on writes for as long as it can: each line of output is a grant,
how often its connection was made anew, and whether the write was answered ("here") or the daemon is "away". "lost" and
why, when that is so.
"""

from __future__ import annotations

import sys
import time

from lpt_client import blocking
from lpt_client.errors import ConnectionLost, LptError

# A daemon that cannot be reached is noticed by this, before the client's own kernel does; a slow one is not.
REPLY_S = 10.0


def main() -> None:
    """Own the port until it is lost."""
    host, tcp_port = sys.argv[1:]
    url = f"lpt://{host}:{tcp_port}"
    try:
        with blocking.open_port(url, reconnect=True, connect_timeout_s=REPLY_S, reply_timeout_s=REPLY_S) as port:
            grant, session, returns = port.allocate(), port.session, 0
            while True:
                state = "here"
                try:
                    port.write_data(returns, grant=grant)
                except ConnectionLost as lost:
                    if not (lost.goes_on or port.grant == grant):
                        raise
                    state = "away"
                if port.session is not session:
                    session, returns = port.session, returns + 1
                print(grant, returns, state, flush=True)
                time.sleep(0.05)
    except LptError as error:
        print("lost", error, flush=True)


if __name__ == "__main__":
    main()
