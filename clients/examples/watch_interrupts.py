"""How do I get every interrupt, and learn of those that I did not get?

    python3 watch_interrupts.py lpt://lab-pc/LPT1 [NUMBER]

With `reconnect=True` it also survives a restart of the daemon. NUMBER: end after so many interrupts.
"""

import math
import sys

import trio

import lpt_client


async def main(url: str, number: float) -> None:
    async with lpt_client.open_port(url, reconnect=True) as port, port.connect_interrupt() as interrupts:
        print("listening", flush=True)
        async for event in interrupts:
            if isinstance(event, lpt_client.Interrupt):
                print(f"interrupt {event.seq} at {event.timestamp_ns} ns, status 0x{event.status:02x}", flush=True)
            else:
                print(event, flush=True)  # Mark, Sync, Reconnected: what is not known, and why
            if interrupts.received >= number:
                break
    print(f"received {interrupts.received}, lost {interrupts.lost}")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3) or not all(number.isdecimal() for number in sys.argv[2:]):
        sys.exit("usage: python3 watch_interrupts.py URL [NUMBER], such as lpt://lab-pc/LPT1 10")
    trio.run(main, sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else math.inf)
