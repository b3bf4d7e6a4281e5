"""How do I have a function called at each interrupt, as a driver would?

    python3 interrupt_routine.py lpt://lab-pc/LPT1

It listens and pulses D3 itself; with a wire from D3 (pin 5) to nAck (pin 10) each pulse is an interrupt. The deferred
port check is told when the port has become idle.
"""

import sys

import trio

import lpt_client


def routine(interrupt: lpt_client.Interrupt, name: str) -> None:
    print(f"{name}: interrupt {interrupt.seq}")


async def main(url: str) -> None:
    async with lpt_client.open_port(url) as port:
        idle = trio.Event()
        async with port.connect_interrupt(routine, "rig 1", deferred=lambda _name: idle.set()) as interrupts:
            async with port.allocated():
                for _ in range(3):
                    await port.pulse(0x08, width_us=1000)
            await idle.wait()
        print(f"the port is idle; received {interrupts.received}, lost {interrupts.lost}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python3 interrupt_routine.py URL, such as lpt://lab-pc/LPT1")
    trio.run(main, sys.argv[1])
