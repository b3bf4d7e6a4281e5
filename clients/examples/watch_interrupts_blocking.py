"""How do I wait for an interrupt without an event loop, and not for ever?

    python3 watch_interrupts_blocking.py lpt://lab-pc/LPT1

It pulses D3 itself; with a wire from D3 (pin 5) to nAck (pin 10) that is an interrupt.
"""

import sys

from lpt_client import Interrupt, blocking


def main(url: str) -> None:
    with blocking.open_port(url) as port, port.connect_interrupt() as interrupts:
        with port.allocated(timeout=10):
            edges = port.pulse(0x08, width_us=1000)
        event = interrupts.next(timeout=2)
        if isinstance(event, Interrupt):
            print(f"it came {(event.timestamp_ns - edges.first_ns) / 1000:.0f} us after the edge")
        else:
            print("nothing came: is there a wire from D3 to nAck?" if event is None else event)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python3 watch_interrupts_blocking.py URL, such as lpt://lab-pc/LPT1")
    main(sys.argv[1])
