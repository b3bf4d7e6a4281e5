"""Hardware: the registers of a parallel port and the descriptor by which its interrupts are noticed."""
