"""What the daemon needs of a parallel port. Every port kind is one class below `ParallelPort`.

Synchronization: a port is used by one thread, the daemon's event loop. No method sleeps: a register access takes
microseconds, and whatever takes time (a pulse, a handshake) is a job that the server runs.

Error handling: any method may raise PortGoneError (the device went away; the daemon then removes the port) or PortError
(the access failed; the request ends with STATUS_IO_DEVICE_ERROR). Not every system tells of a device that has gone
(Linux' ppdev does not): then reads give 0, writes go nowhere, no interrupt comes, and `check_present` alone raises.
"""

from __future__ import annotations

from abc import ABC, abstractmethod


class ParallelPort(ABC):
    """One parallel port, opened and held exclusively by this process.

    Registers have the layout of the PC parallel port, hardware inversions included (`protocol.ioctl` names the bits).
    A port begins with control bits 0 to 3 as after a PC's reset (0x0C), and with the data lines as outputs.

    Attributes:
        kind: "simulated", "ppdev": what `status` shows.
        is_bidirectional: control bit 5 switches the data lines to input.
        can_disable_interrupt: control bit 4 is the daemon's to set. Where it is not (ppdev), interrupts arrive all the
            time, and "quiet" means that the daemon does not listen.
    """

    kind: str
    is_bidirectional: bool
    can_disable_interrupt: bool

    @abstractmethod
    def read_data(self) -> int:
        """The data lines: the latch while they are outputs, what the peripheral drives while they are inputs."""

    @abstractmethod
    def read_status(self) -> int:
        """The status register; bits 0 to 2 are 0."""

    @abstractmethod
    def read_control(self) -> int:
        """The control register; bits 6 and 7 are 0."""

    @abstractmethod
    def write_data(self, value: int) -> int:
        """Set the data latch (0 to 255). Returns CLOCK_MONOTONIC in ns right after the write."""

    @abstractmethod
    def write_control(self, value: int) -> int:
        """Set bits 0 to 3, and bit 5 where the port is bidirectional; bit 4 stays as it is.

        Returns CLOCK_MONOTONIC in ns right after the write.
        """

    @abstractmethod
    def set_interrupt_enable(self, enable: bool) -> None:
        """Set control bit 4; nothing where `can_disable_interrupt` is false."""

    @abstractmethod
    def fileno(self) -> int:
        """A descriptor that is readable while interrupts wait to be taken; also once the port is gone, where the
        system tells. It stays the same until `close`.
        """

    @abstractmethod
    def take_interrupts(self) -> int:
        """Clear and return the number of interrupts since the last call; 0 when there were none.

        Reading the status register does not clear them.
        """

    @abstractmethod
    def check_present(self) -> None:
        """Raise PortGoneError if the device has gone. The daemon asks now and then: not every access tells."""

    @abstractmethod
    def close(self) -> None:
        """Give the device back; lines that are outputs stay as they are. Never raises; a second call does nothing."""
