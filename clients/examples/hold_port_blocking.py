"""How do I use the port from an ordinary program, without an event loop?

    python3 hold_port_blocking.py lpt://lab-pc/LPT1

Runs on Windows and Python 3.10 too, and needs no package but msgpack.
"""

import sys

from lpt_client import blocking


def main(url: str) -> None:
    with blocking.open_port(url) as port, port.allocated(timeout=10):
        port.write_data(0x12)
        print(f"data 0x{port.read_data():02x}, status 0x{port.read_status():02x}")
        port.write_data(0x00)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python3 hold_port_blocking.py URL, such as lpt://lab-pc/LPT1")
    main(sys.argv[1])
