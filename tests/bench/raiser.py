"""Raises interrupts at a steady rate, and says afterwards when: a process of its own, so that it delays nobody.

    python -m tests.bench.raiser EVENTFD RATE-HZ COUNT [now]

It prints "ready", begins when it is given a line (or now), and prints the times (CLOCK_MONOTONIC in ns), right
before each was raised, as an array of u64 in hexadecimal.
"""

from __future__ import annotations

import array
import os
import sys
import time


def main() -> None:
    """Raise COUNT interrupts."""
    descriptor, rate_hz, count = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
    print("ready", flush=True)
    if "now" not in sys.argv:
        sys.stdin.readline()
    clock, raised_ns = time.monotonic_ns, array.array("Q", bytes(8 * count))
    start_ns, period_ns = clock(), 1e9 / rate_hz
    for number in range(count):
        wait_ns = start_ns + number * period_ns - clock()
        if wait_ns > 0:
            time.sleep(wait_ns / 1e9)
        raised_ns[number] = clock()
        os.eventfd_write(descriptor, 1)
    print(raised_ns.tobytes().hex(), flush=True)


if __name__ == "__main__":
    main()
