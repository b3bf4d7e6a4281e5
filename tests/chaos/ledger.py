"""What all clients of a port know together, and what must be true of it: one owner at a time, first come, first served.

Clients note each grant and the daemon's own times of what they wrote under it; an observer notes who waits and who owns
as `status` tells it. No time of the test's own is compared with anything.
"""

from __future__ import annotations

import threading
from bisect import bisect
from collections.abc import Iterable
from itertools import pairwise
from typing import Any, NamedTuple


class Holding(NamedTuple):
    """What a client knows of one grant: its session, and the daemon's times of its first and last write."""

    session: int
    client: str
    first_ns: int
    last_ns: int


class Waiting(NamedTuple):
    """One request in the queue: whose, and since when."""

    session: int
    since_ns: int


class Ledger:
    """One port's grants and its queue. Threads may share it.

    Attributes:
        faults: what was found wrong, in words.
    """

    def __init__(self) -> None:
        self.faults: list[str] = []
        self._lock = threading.Lock()
        self._holdings: dict[int, Holding] = {}
        self._owners: dict[int, int] = {}  # grant → session, as status told
        self._queue: list[Waiting] = []  # as status told last
        self._former: list[int] = []  # the sessions in it when another daemon took over
        self._waited: set[Waiting] = set()
        self._last_grant = 0
        self._ends_ns: list[int] = []  # of the daemons before this one
        self.silent_ns: list[int] = []  # times at which the port was not heard, as status told

    # What clients note

    def granted(self, grant: int, session: int, client: str) -> None:
        """A client was given the port."""
        with self._lock:
            other = self._holdings.get(grant)
            if other is not None:
                self.faults.append(f"grant {grant} is held by {client} and by {other.client}")
            self._holdings[grant] = Holding(session, client, 0, 0)

    def wrote(self, grant: int, *times_ns: int) -> None:
        """What a client did under a grant, at these times of the daemon."""
        with self._lock:
            held = self._holdings[grant]
            times = [*times_ns, *((held.first_ns, held.last_ns) if held.first_ns else ())]
            self._holdings[grant] = held._replace(first_ns=min(times), last_ns=max(times))

    @property
    def grants(self) -> int:
        """How many grants clients have told of."""
        return len(self._holdings)

    @property
    def waits(self) -> int:
        """How many requests were seen in the queue."""
        return len(self._waited)

    # What the observer notes

    def observed(self, report: dict[str, Any]) -> None:
        """An answer of `status`."""
        queue = [Waiting(each["session"], each["since_ns"]) for each in report["waiters"]]
        with self._lock:
            self._check_queue(queue, [each["position"] for each in report["waiters"]])
            self._queue = queue
            self._waited.update(queue)
            if not report["interrupts"]["connected"]:
                self.silent_ns.append(report["monotonic_ns"])
            owner = report["owner"]
            if owner is not None:
                if owner["grant"] < self._last_grant:
                    self.faults.append(f"grant {owner['grant']} comes after {self._last_grant}")
                self._last_grant = owner["grant"]
                if self._owners.setdefault(owner["grant"], owner["session"]) != owner["session"]:
                    self.faults.append(f"grant {owner['grant']} has two owners, as status tells it")

    def begin_anew(self, at_ns: int) -> None:
        """Another daemon took over at this time. It gives numbers of sessions anew that have not come over to it."""
        with self._lock:
            self._ends_ns.append(at_ns)
            self._queue, self._former = [], [each.session for each in self._queue]

    def _check_queue(self, queue: list[Waiting], positions: list[int]) -> None:
        if positions != [*range(1, len(queue) + 1)]:
            self.faults.append(f"positions in the queue: {positions}")
        if any(before.since_ns > after.since_ns for before, after in pairwise(queue)):
            self.faults.append(f"the queue is not in the order in which it was joined: {queue}")
        if queue and self._former:
            # Those who came over to the next daemon began to wait anew, all at one time.
            over = [each.session for each in queue if each.since_ns == queue[0].since_ns]
            if [each for each in over if each in self._former] != [each for each in self._former if each in over]:
                self.faults.append(f"the order after a restart: {self._former}, then {over}")
            self._former = []
        left = [each for each in self._queue if each in set(queue)]
        if queue[: len(left)] != left:
            self.faults.append(f"somebody has overtaken: {self._queue}, then {queue}")

    # The account

    def check(self) -> None:
        """What can be told at the end only. Raises AssertionError with everything that was found."""
        with self._lock:
            self.faults += [*self._overlaps(), *self._strangers(), *self._overtakings()]
            assert not self.faults, "\n".join(self.faults[:20])

    def _overlaps(self) -> Iterable[str]:
        written = sorted((grant, held) for grant, held in self._holdings.items() if held.first_ns)
        for (first, earlier), (second, later) in pairwise(written):
            if earlier.last_ns >= later.first_ns:
                yield f"{later.client} wrote under grant {second} before {earlier.client} last did under {first}"

    def _strangers(self) -> Iterable[str]:
        for grant, session in self._owners.items():
            held = self._holdings.get(grant)
            if held is not None and held.session != session:
                yield f"grant {grant} is {held.session}'s by its client, {session}'s by status"

    def _overtakings(self) -> Iterable[str]:
        """Of two that were seen in the queue, who joined it first was granted first.

        A session waits no more once a wait of its has timed out, so its next write tells of the grant it waited for.
        What was waited for when a daemon ended is not compared: with the next one a wait begins anew.
        """
        writes: dict[int, list[tuple[int, int]]] = {}
        for grant, held in sorted(self._holdings.items()):
            if held.first_ns:
                writes.setdefault(held.session, []).append((held.first_ns, grant))
        granted: list[tuple[Waiting, int]] = []
        for wait in sorted(self._waited, key=lambda wait: wait.since_ns):
            first_ns, grant = next((each for each in writes.get(wait.session, ()) if each[0] > wait.since_ns), (0, 0))
            if grant and bisect(self._ends_ns, wait.since_ns) == bisect(self._ends_ns, first_ns):
                granted.append((wait, grant))
        granted.sort(key=lambda each: (each[0].since_ns, each[1]))  # those who came over to a daemon did so at one time
        for (first, earlier), (second, later) in pairwise(granted):
            if earlier > later:
                yield f"{second} was granted ({later}) before {first} ({earlier}), which had come before"


class Witness:
    """Everything that a port's log said to a listener that nobody disturbs: what others heard is compared with it."""

    def __init__(self) -> None:
        self._entry_of: dict[int, tuple[int, int]] = {}  # the last number of an entry → its time, how many
        self.next_seq: int | None = None

    def heard(self, seq: int, count: int, timestamp_ns: int) -> None:
        """An interrupt of the log, without a gap."""
        assert self.next_seq in (None, seq), f"the witness lacks {self.next_seq} to {seq}"
        self.next_seq = seq + count
        if count:
            self._entry_of[seq + count - 1] = (timestamp_ns, count)

    def entry(self, last_seq: int) -> tuple[int, int] | None:
        """The time of the entry that ends with this number, and how many interrupts it stands for."""
        return self._entry_of.get(last_seq)


class Heard(NamedTuple):
    """What a listener was handed of the log."""

    seq: int
    count: int  # type: ignore[assignment]  # hides tuple.count()
    timestamp_ns: int


class Account:
    """One listener's account, kept from its events alone; compared with the SDK's own, and with the witness.

    Attributes:
        reconnects: how often its connection was made anew.
        restarts: how often another daemon, with another log, went on.
    """

    def __init__(self, first_seq: int) -> None:
        self.first_seq = self.next_seq = first_seq
        self.received = self.lost = self.reconnects = self.restarts = 0
        self._before = 0  # of received and lost, what an earlier log had
        self.heard: list[Heard] = []
        self.unheard_marks = 0
        self._trail: list[tuple[int, bool]] = []  # times of interrupts, and (True) of the marks "unheard"

    def add(self, event: Any) -> None:
        """The next event: an Interrupt, Mark, Sync or Reconnected of lpt_client."""
        name = type(event).__name__
        if name == "Interrupt":
            assert event.seq == self.next_seq, f"{event}: {self.next_seq} was to come"
            self.next_seq, self.received = event.seq + event.count, self.received + event.count
            self.heard.append(Heard(event.seq, event.count, event.timestamp_ns))
            self._trail.append((event.timestamp_ns, False))
        elif name == "Mark":
            assert event.seq == self.next_seq, f"{event}: {self.next_seq} was to come"
            if event.kind == "unheard":
                self.unheard_marks += 1
                self._trail.append((event.timestamp_ns, True))
        elif name == "Sync" and event.reason == "restarted":
            self._begin_anew(event)
        elif name == "Sync":
            assert event.reason in ("resumed", "overrun", "dropped"), f"{event}: why?"
            assert event.lost == event.next_seq - self.next_seq, f"{event}: {self.next_seq} was to come"
            self.next_seq, self.lost = event.next_seq, self.lost + event.lost
        else:
            self.reconnects += 1

    def check(self, interrupts: Any) -> None:
        """At the end: nothing is missing without a word. `interrupts` is the SDK's registration."""
        assert (self.received, self.lost) == (interrupts.received, interrupts.lost), "lost without a word"
        assert self.next_seq == interrupts.next_seq
        self._check_log()

    def _check_log(self) -> None:
        assert self.received + self.lost - self._before == self.next_seq - self.first_seq

    def _begin_anew(self, sync: Any) -> None:
        assert sync.lost is None, sync
        self._check_log()
        self._before = self.received + self.lost
        self.first_seq = self.next_seq = sync.next_seq
        self.restarts += 1
        self.heard.clear()
        self._note_silence()

    def _note_silence(self) -> None:
        """It has been told that something is missing here, so a silence needs no mark."""
        if self._trail:
            self._trail.append((self._trail[-1][0], True))

    def check_silences(self, silent_ns: list[int]) -> None:
        """Between two interrupts with a time between them at which the port was not heard, a mark says so."""
        for (before_ns, _), (after_ns, is_mark) in pairwise(self._trail):
            place = bisect(silent_ns, before_ns)
            is_silent = place < len(silent_ns) and silent_ns[place] < after_ns
            assert is_mark or not is_silent, f"not heard at {silent_ns[place]}, and no mark before {after_ns}"

    def check_against(self, witness: Witness) -> None:
        """What was heard is what the log said."""
        for heard in self.heard:
            entry = witness.entry(heard.seq + heard.count - 1)
            assert entry is not None, f"{heard} is not in the log"
            assert entry[0] == heard.timestamp_ns
            assert entry[1] >= heard.count
