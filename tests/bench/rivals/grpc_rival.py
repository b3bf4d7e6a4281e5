"""gRPC: its Python server and blocking client. The messages are plain bytes, so no protobuf is packed or parsed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc


@contextmanager
def client(port: int) -> Iterator[Callable[[], object]]:
    """A connection; what it gives makes one round trip."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        read = channel.unary_unary("/bench.Port/Read")
        yield lambda: read(b"\x01")


def main() -> None:
    """Serve until ended."""
    server = grpc.server(ThreadPoolExecutor(max_workers=2))
    handler = grpc.unary_unary_rpc_method_handler(lambda request, context: b"\x79")
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Port", {"Read": handler}),))
    print("ready", server.add_insecure_port("127.0.0.1:0"), flush=True)
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    main()
