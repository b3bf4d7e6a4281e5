"""How do I send a trigger? Own the port, pulse a code on the data lines, free the port.

    python3 trigger_pulse.py lpt://lab-pc/LPT1

The daemon times the pulse; `edges` says when it really was, on the daemon's clock.
"""

import sys

import trio

import lpt_client


async def main(url: str) -> None:
    async with lpt_client.open_port(url) as port, port.allocated(timeout=10):
        edges = await port.pulse(0x01, width_us=5000)
        print(f"D0 was high for {(edges.second_ns - edges.first_ns) / 1000:.0f} us")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python3 trigger_pulse.py URL, such as lpt://lab-pc/LPT1")
    trio.run(main, sys.argv[1])
