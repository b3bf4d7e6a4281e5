"""What burdens a daemon while somebody else is measured: a process of its own.

    python -m tests.bench.load pipeline PORT        READ_PORT_UCHAR without end, 64 in each send
    python -m tests.bench.load listen PORT N        N listeners that read all they get

It prints "ready" when it is at work, and goes on until ended.
"""

from __future__ import annotations

import sys

from tests.bench import frames
from tests.bench.bench import Address
from tests.bench.crowd import Crowd


def main() -> None:
    """Work until ended."""
    address: Address = ("127.0.0.1", int(sys.argv[2]))
    if sys.argv[1] == "pipeline":
        sock = frames.greet(address)
        sock.sendall(frames.READ_STATUS * 64)
        print("ready", flush=True)
        while data := sock.recv(65536):
            sock.sendall(frames.READ_STATUS * (len(data) // frames.READ_REPLY_BYTES))
    else:
        crowd = Crowd([frames.listen(address) for _ in range(int(sys.argv[3]))], frames.FRAME_BYTES)
        print("ready", flush=True)
        while True:
            crowd.take()


if __name__ == "__main__":
    main()
