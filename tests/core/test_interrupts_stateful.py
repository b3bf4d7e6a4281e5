"""Who hears an interrupt: registrations, source and log, driven through the function driver."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lpt_service.protocol.messages import SYNC_CONNECTED, SYNC_RESTARTED, SYNC_RESUMED
from lpt_service.protocol.status import Status
from lpt_service.protocol.structs import U64
from tests.core.fakes import FakePort
from tests.core.harness import MS, STREAM, Call, Client, Harness, Passage, routine
from tests.core.interrupt_model import CAPACITY, LINGER_NS, RATE_HZ, InterruptModel, Way, has_isr

SLOTS = st.integers(0, 3)
STRUCTURES = st.sampled_from((routine(isr=1), routine(isr=2, deferred=3), routine(deferred=4)))
BURSTS = st.one_of(st.integers(1, 3), st.integers(1, 2 * RATE_HZ))


class InterruptMachine(RuleBasedStateMachine):
    """Four slots, in each a client; one that dies is followed by a new one, which may resume."""

    def __init__(self) -> None:
        super().__init__()
        self.is_stopped = False
        self.is_gate_open = True
        self.fences: list[tuple[Call, int]] = []
        self.left_at: dict[int, int] = {}  # by slot: where its last client was in the log when it died

    @initialize(can_disable=st.booleans())
    def begin(self, can_disable: bool) -> None:
        port = FakePort(can_disable_interrupt=can_disable)
        self.harness = Harness(
            port,
            interrupt_log_frames=CAPACITY,
            interrupt_linger_ns=LINGER_NS,
            max_interrupt_rate_hz=RATE_HZ,
        )
        self.model = InterruptModel(self.harness.now_ns, can_disable)
        self.clients = self.harness.clients(4)

    @rule(count=BURSTS)
    def raise_interrupts(self, count: int) -> None:
        """Not collected yet."""
        self.harness.port.raise_interrupts(count)
        self.model.raise_interrupts(count)

    @rule(count=BURSTS)
    def interrupt(self, count: int) -> None:
        self.harness.interrupt(count)
        self.model.raise_interrupts(count)
        if self.model.is_heard and self.model.latched:
            self.model.collect()

    @rule(slot=SLOTS, structure=STRUCTURES, output_length=st.sampled_from((32, 40)))
    def connect(self, slot: int, structure: bytes, output_length: int) -> None:
        client, model = self.clients[slot], self.model
        is_first = client not in model.listeners()
        call = client.connect(structure, output_length)
        if self._is_refused(client, structure, call):
            return
        model.connect(client, structure)
        assert call.output is not None
        assert call.output[32:] == (U64.pack(model.generated) if output_length == 40 else b"")
        if is_first and has_isr(structure):
            assert client.passages[-1].syncs == [(SYNC_CONNECTED, model.generated, 0)]

    def _is_refused(self, client: Client, structure: bytes, call: Call) -> bool:
        if self.is_stopped:
            assert call.status == Status.STATUS_DELETE_PENDING
        elif not self.is_gate_open:
            assert call.status == Status.STATUS_UNSUCCESSFUL
        elif (client, structure) in self.model.connected:
            assert call.status == Status.STATUS_INVALID_PARAMETER
        else:
            return False
        return True

    @rule(
        slot=SLOTS,
        structure=STRUCTURES,
        stream=st.sampled_from((STREAM, STREAM, STREAM, STREAM + 1)),
        back=st.one_of(st.none(), st.integers(-2, 200)),
    )
    def resume(self, slot: int, structure: bytes, stream: int, back: int | None) -> None:
        """Connect with `from`: where the slot's last client was, or so many interrupts back."""
        client, model = self.clients[slot], self.model
        from_seq = self.left_at.get(slot, 0) if back is None else max(0, model.generated - back)
        is_first = client not in model.listeners() and has_isr(structure)
        call = client.connect(structure, from_=(stream, from_seq))
        if self.is_stopped or not self.is_gate_open:
            self._is_refused(client, structure, call)
            return
        if stream == STREAM and is_first:
            model.collect()
            if from_seq > model.generated:
                assert call.status == Status.STATUS_INVALID_PARAMETER
                return
        if self._is_refused(client, structure, call):
            return
        model.connect(client, structure)
        assert call.output is not None
        next_seq, lost = model.generated, None
        if is_first and stream == STREAM:
            next_seq, lost = model.resume(client, from_seq)
        if is_first:
            reason = SYNC_RESUMED if stream == STREAM else SYNC_RESTARTED
            assert client.passages[-1].syncs == [(reason, next_seq, lost)]
        assert call.output[32:] == U64.pack(next_seq)

    @rule(slot=SLOTS, structure=STRUCTURES)
    def disconnect(self, slot: int, structure: bytes) -> None:
        client, model = self.clients[slot], self.model
        call = client.disconnect(structure)
        if self.is_stopped:
            assert call.status == Status.STATUS_DELETE_PENDING
        elif (client, structure) not in model.connected:
            assert call.status == Status.STATUS_INVALID_PARAMETER
        else:
            was_listening = client in model.listeners()
            model.disconnect(client, structure)
            if was_listening and client not in model.listeners():
                assert call.is_pending, "the answer has to wait for the events before it"
                self.fences.append((call, model.generated))
            else:
                assert call.value == model.generated

    @rule(slot=SLOTS)
    def die(self, slot: int) -> None:
        client = self.clients[slot]
        if client.passages:
            self.left_at[slot] = client.passages[-1].next_seq
        self.fences = [(call, end_seq) for call, end_seq in self.fences if call not in client.calls.values()]
        client.die()
        self.model.die(client)
        self.clients[slot] = self.harness.client()

    @rule(by_ms=st.one_of(st.integers(0, 1200), st.integers(1, 70_000)))
    def wait(self, by_ms: int) -> None:
        until_ns = self.harness.now_ns + by_ms * MS
        self.harness.advance(by_ms * MS)
        while (due_ns := self.model.next_due_ns()) is not None and due_ns <= until_ns:
            self.model.now_ns = due_ns
            self.model.run_due()
        self.model.now_ns = until_ns

    @precondition(lambda self: not self.is_stopped)
    @rule(is_open=st.booleans())
    def turn_gate(self, is_open: bool) -> None:
        driver = self.harness.driver
        driver.reconfigure(replace(driver.settings, enable_connect_interrupt=is_open))
        self.is_gate_open = is_open

    @precondition(lambda self: not self.is_stopped)
    @rule(is_on=st.booleans())
    def pause_or_resume(self, is_on: bool) -> None:
        if is_on:
            self.harness.pause()
            self.model.pause()
        else:
            self.harness.resume()
            self.model.unpause()

    @rule(slot=SLOTS, max_frames=st.integers(1, 6))
    def hear(self, slot: int, max_frames: int) -> None:
        self.clients[slot].hear(max_frames)

    @rule(slot=SLOTS)
    def hear_all(self, slot: int) -> None:
        """The invariant: received + lost = generated, for every passage of the client so far."""
        client = self.clients[slot]
        client.hear()
        ways = self.model.ways.get(client, [])
        for passage, way in zip(client.passages, ways, strict=True):
            self._compare(passage, way)

    def _compare(self, passage: Passage, way: Way) -> None:
        end_seq = self.model.generated if way.end_seq is None else way.end_seq
        assert passage.received + passage.lost == end_seq - way.start_seq
        assert passage.is_over is (way.end_seq is not None)
        heard = [(seq, count, kind) for seq, _, count, _, _, kind in passage.frames]
        expected = self.model.history[way.start_entry : way.end_entry]
        if len(passage.syncs) == 1:
            assert heard == expected
        else:
            rest = iter(expected)
            assert all(entry in rest for entry in heard), "not what was generated, in its order"

    @precondition(lambda self: not self.is_stopped)
    @rule(sure=st.integers(0, 9))
    def stop(self, sure: int) -> None:
        if sure != 9:
            return
        self.harness.driver.stop(self.harness.now_ns)
        self.harness.carry_out()
        self.model.stop()
        self.is_stopped = True

    @invariant()
    def the_source_is_heard_exactly_while_somebody_listens(self) -> None:
        harness, model, registry = self.harness, self.model, self.harness.driver.registry
        is_heard = model.is_heard and not self.is_stopped
        assert registry.is_heard is is_heard
        assert harness.is_listening() is is_heard
        assert registry.is_lingering is (model.linger_until_ns is not None)
        assert [(each.session, each.key) for each in registry] == [
            (client.state, structure) for client, structure in model.connected
        ]

    @invariant()
    def the_log_is_the_end_of_the_history(self) -> None:
        log, model = self.harness.log, self.model
        assert log.next_seq == model.generated
        assert self.harness.driver.registry.strays == model.strays
        assert log.end == len(model.history)
        kept = model.history[log.oldest :]
        assert [log.seq_at(entry) for entry in range(log.oldest, log.end)] == [entry[0] for entry in kept]

    @invariant()
    def fences_hold(self) -> None:
        for call, end_seq in self.fences:
            assert call.is_pending or call.value == end_seq

    def teardown(self) -> None:
        if hasattr(self, "harness"):
            for slot in range(4):
                self.hear_all(slot)
            assert not any(call.is_pending for call, _ in self.fences)


TestInterruptModel = InterruptMachine.TestCase
TestInterruptModel.settings = settings(max_examples=150, stateful_step_count=40)
