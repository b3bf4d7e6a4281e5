"""Somebody on another machine: connects, says hello, and prints what it is told, as JSON, a line for each.

    python -m tests.system.stranger HOST TCP_PORT TOKEN [CA]

With CA, over TLS, believing that authority whatever name the certificate has. An empty TOKEN: none is given.
"""

from __future__ import annotations

import json
import ssl
import sys

import msgpack

from tests.e2e.client import RawClient


def main() -> None:
    """Print the answer to hello, then all that follows if the conversation is ended."""
    host, tcp_port, token, *ca = sys.argv[1:]
    client = RawClient((host, int(tcp_port)))
    if ca:
        context = ssl.create_default_context(cafile=ca[0])
        context.check_hostname = False
        client.socket = context.wrap_socket(client.socket)
    client.socket.sendall(msgpack.packb([0, 1, "hello", [{"protocol": 1, **({"token": token} if token else {})}]]))
    answer = client.receive()
    is_welcome = answer[:3] == [1, 1, None]
    for message in [["welcome", answer[3]["port"]]] if is_welcome else [answer, *client.rest()]:
        print(json.dumps(message), flush=True)
    client.close()


if __name__ == "__main__":
    main()
