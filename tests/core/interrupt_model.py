"""A port's interrupts as a child would count them: a history that forgets nothing, and a list of who listens.

It knows the contract's semantics 3, 4, 5 and 8, and pausing, and predicts every entry of the log.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from lpt_service.core.storm_guard import FIRST_PAUSE_NS, LONGEST_PAUSE_NS
from lpt_service.protocol.messages import KIND_EVENT, KIND_MASKED, KIND_STOPPED, KIND_UNHEARD, KIND_UNMASKED
from lpt_service.protocol.structs import PARALLEL_INTERRUPT_SERVICE_ROUTINE
from tests.core.harness import SECOND, Client

CAPACITY = 8
RATE_HZ = 30
LINGER_NS = 3 * SECOND - 7  # never together with the end of a pause

Entry = tuple[int, int, int]  # seq, count, kind


def has_isr(structure: bytes) -> bool:
    """True when the structure names an interrupt routine."""
    return PARALLEL_INTERRUPT_SERVICE_ROUTINE.unpack(structure).InterruptServiceRoutine != 0


@dataclass
class Way:
    """What a client is to hear, from its first ISR's connect to its last one's disconnect."""

    start_seq: int  # every interrupt from this one on is received, or reported lost
    start_entry: int
    end_seq: int | None = None
    end_entry: int | None = None


@dataclass
class InterruptModel:
    """One port's interrupts."""

    now_ns: int
    can_disable: bool = True
    history: list[Entry] = field(default_factory=list)
    generated: int = 0
    strays: int = 0
    latched: int = 0
    connected: list[tuple[Client, bytes]] = field(default_factory=list)
    ways: dict[Client, list[Way]] = field(default_factory=dict)
    linger_until_ns: int | None = None
    masked_until_ns: int | None = None
    is_paused: bool = False
    unmasked_ns: int = 0
    pause_ns: int = 0
    recent: list[tuple[int, int]] = field(default_factory=list)  # when, how many: since it was unmasked last

    @property
    def is_wanted(self) -> bool:
        """Somebody listens, or has just vanished."""
        return bool(self.listeners()) or self.linger_until_ns is not None

    @property
    def is_heard(self) -> bool:
        """Interrupts go into the log."""
        return self.is_wanted and self.masked_until_ns is None and not self.is_paused

    def listeners(self) -> list[Client]:
        """Who has an ISR connected, once for each."""
        return [client for client, structure in self.connected if has_isr(structure)]

    def raise_interrupts(self, count: int) -> None:
        """The line rises."""
        if self.is_heard or not self.can_disable:
            self.latched += count

    def collect(self) -> None:
        """What has been raised is taken."""
        count, self.latched = self.latched, 0
        if not self.is_heard:
            self.strays += count
        elif count:
            self._write(count, KIND_EVENT)
            self.recent.append((self.now_ns, count))
            if sum(number for at_ns, number in self.recent if self.now_ns - at_ns < SECOND) > RATE_HZ:
                self._mask()

    def connect(self, client: Client, structure: bytes) -> None:
        """A structure that is not connected yet."""
        self.collect()
        if has_isr(structure):
            if not self.is_wanted:
                self._write_state()
            self.linger_until_ns = None
            if client not in self.listeners():
                self.ways.setdefault(client, []).append(Way(self.generated, len(self.history)))
        self.connected.append((client, structure))

    def resume(self, client: Client, from_seq: int) -> tuple[int, int]:
        """It begins at `from_seq` instead: the number that comes next, and how many are lost."""
        way = self.ways[client][-1]
        kept = range(max(0, len(self.history) - CAPACITY), len(self.history))
        way.start_seq = from_seq
        way.start_entry = next((entry for entry in kept if self.history[entry][0] >= from_seq), len(self.history))
        next_seq = self.history[way.start_entry][0] if way.start_entry < len(self.history) else self.generated
        return next_seq, next_seq - from_seq

    def disconnect(self, client: Client, structure: bytes) -> None:
        """A structure that is connected."""
        self.collect()
        self.connected.remove((client, structure))
        if has_isr(structure) and client not in self.listeners():
            way = self.ways[client][-1]
            way.end_seq, way.end_entry = self.generated, len(self.history)

    def die(self, client: Client) -> None:
        """A session ends."""
        was_listening = client in self.listeners()
        self.connected = [each for each in self.connected if each[0] is not client]
        self.ways.pop(client, None)
        if was_listening and not self.listeners():
            self.linger_until_ns = self.now_ns + LINGER_NS

    def pause(self) -> None:
        """The port is paused."""
        if not self.is_paused:
            if self.is_heard:
                self.collect()
            self.is_paused = True
            self._write(0, KIND_STOPPED)

    def unpause(self) -> None:
        """The port is resumed."""
        if self.is_paused:
            if self.is_wanted:
                self.collect()
            self.is_paused = False
            if self.is_wanted:
                self._write_state()

    def stop(self) -> None:
        """The port stops."""
        if self.is_heard:
            self.collect()
        self._write(0, KIND_STOPPED)
        for client in self.listeners():
            way = self.ways[client][-1]
            way.end_seq, way.end_entry = self.generated, len(self.history)
        self.connected.clear()
        self.linger_until_ns = self.masked_until_ns = None

    def next_due_ns(self) -> int | None:
        """When something happens by itself."""
        return min((each for each in (self.linger_until_ns, self.masked_until_ns) if each is not None), default=None)

    def run_due(self) -> None:
        """The end of lingering, or of a pause."""
        if self.linger_until_ns is not None and self.linger_until_ns <= self.now_ns:
            if self.is_heard:
                self.collect()
            self.linger_until_ns = None
        elif self.masked_until_ns is not None and self.masked_until_ns <= self.now_ns:
            self.collect()
            self.masked_until_ns = None
            self.unmasked_ns = self.now_ns
            self.recent.clear()
            if not self.is_paused:
                self._write(0, KIND_UNMASKED)

    def _write_state(self) -> None:
        """Whether it is heard from here on; the latest mark in the log says so at any time."""
        if self.is_paused or self.masked_until_ns is not None:
            kind = KIND_STOPPED if self.is_paused else KIND_MASKED
            if kind != self.standing(len(self.history)):
                self._write(0, kind)
        else:
            self._write(0, KIND_UNHEARD)

    def standing(self, entry: int) -> int | None:
        """The latest mark before `entry`."""
        return next((kind for _, _, kind in reversed(self.history[:entry]) if kind != KIND_EVENT), None)

    def _mask(self) -> None:
        self._write(0, KIND_MASKED)
        if self.now_ns - self.unmasked_ns >= LONGEST_PAUSE_NS:
            self.pause_ns = 0
        self.pause_ns = min(max(2 * self.pause_ns, FIRST_PAUSE_NS), LONGEST_PAUSE_NS)
        self.masked_until_ns = self.now_ns + self.pause_ns

    def _write(self, count: int, kind: int) -> None:
        self.history.append((self.generated, count, kind))
        self.generated += count
