"""Who owns the port and who waits: the queue, driven through the function driver, compared with `queue_model`."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lpt_service.core.arbiter import NOTICE_INTERVAL_NS
from lpt_service.protocol.messages import LEASE, PORT_CHECK, QUEUED, REVOKED, WAITERS
from lpt_service.protocol.status import Status
from tests.core.harness import MS, Call, Client, Harness, routine
from tests.core.queue_model import (
    IDLE_HOLD_NS,
    MAX_HOLD_NS,
    MAX_PENDING,
    MAX_WAITERS,
    SAFE_DATA,
    WARNING_NS,
    Asked,
    QueueModel,
)

SLOTS = st.integers(0, 5)
TIMEOUTS = st.one_of(st.none(), st.integers(0, 300))


class QueueMachine(RuleBasedStateMachine):
    """Six slots, in each a client; one that dies is followed by a new one."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Asked] = []
        self.positions: dict[Call, int] = {}  # what each waiter was last told
        self.waiters: tuple[int, int] = (0, 0)  # what the owner of which grant was last told

    def ask(self, asked: Asked) -> None:
        self.asked.append(asked)
        self.harness.settle()
        self.model.ask(asked)
        self.model.settle()

    def options(self, timeout_ms: int | None) -> dict[str, int]:
        return {} if timeout_ms is None else {"timeout_ms": timeout_ms}

    @initialize(slots=st.sets(SLOTS, max_size=2), has_lease=st.booleans())
    def begin(self, slots: set[int], has_lease: bool) -> None:
        lease: dict[str, Any] = {
            "max_hold_ns": MAX_HOLD_NS,
            "idle_hold_ns": IDLE_HOLD_NS,
            "hold_warning_ns": WARNING_NS,
        }
        self.harness = Harness(
            max_waiters=MAX_WAITERS,
            max_pending_requests=MAX_PENDING,
            safe_data=SAFE_DATA,
            **(lease if has_lease else {}),
        )
        self.model = QueueModel(self.harness.now_ns, has_lease=has_lease)
        self.clients = self.harness.clients(6)
        for slot in slots:
            self.connect(slot)

    @rule(slot=SLOTS)
    def connect(self, slot: int) -> None:
        client = self.clients[slot]
        if client not in self.model.checkers:
            assert client.connect(routine(deferred=5)).status == 0
            self.model.checkers.add(client)
            self.model.hear_of(client)

    @rule(slot=SLOTS)
    def disconnect(self, slot: int) -> None:
        client = self.clients[slot]
        if client in self.model.checkers:
            assert client.disconnect(routine(deferred=5)).status == 0
            self.model.checkers.remove(client)
            self.model.to_check.discard(client)
            self.model.hear_of(client)

    @rule(slot=SLOTS, timeout_ms=TIMEOUTS)
    def allocate(self, slot: int, timeout_ms: int | None) -> None:
        client = self.clients[slot]
        self.ask(Asked(client, client.allocate(**self.options(timeout_ms)), self.model.allocate, timeout_ms))

    @rule(slot=SLOTS)
    def try_allocate(self, slot: int) -> None:
        client = self.clients[slot]
        self.ask(Asked(client, client.try_allocate(), self.model.try_allocate))

    @rule(slot=SLOTS, timeout_ms=st.integers(0, 50), gap_ms=st.integers(0, 250), times=st.integers(1, 8))
    def try_again_and_again(self, slot: int, timeout_ms: int, gap_ms: int, times: int) -> None:
        for _ in range(times):
            self.allocate(slot, timeout_ms)
            self.wait(gap_ms)

    def slot_of_owner_or(self, slot: int | None) -> Client:
        return self.model.owner if slot is None and self.model.owner else self.clients[slot or 0]

    @rule(slot=st.one_of(st.none(), SLOTS))
    def free(self, slot: int | None) -> None:
        client = self.slot_of_owner_or(slot)
        self.ask(Asked(client, client.free(), self.model.free))

    @rule(slot=st.one_of(st.none(), SLOTS), value=st.integers(0, 255), timeout_ms=TIMEOUTS)
    def write(self, slot: int | None, value: int, timeout_ms: int | None) -> None:
        client = self.slot_of_owner_or(slot)
        call = client.write(0, value, **self.options(timeout_ms))
        self.ask(Asked(client, call, self.model.write, timeout_ms, value=value))

    @rule(
        slot=st.one_of(st.none(), SLOTS),
        value=st.integers(0, 255),
        after=st.integers(0, 255),
        width_us=st.integers(1, 400_000),
        timeout_ms=TIMEOUTS,
    )
    def pulse(self, slot: int | None, value: int, after: int, width_us: int, timeout_ms: int | None) -> None:
        client = self.slot_of_owner_or(slot)
        call = client.pulse(value, after, width_us, **self.options(timeout_ms))
        self.ask(Asked(client, call, self.model.pulse, timeout_ms, value=value, after=after, width_us=width_us))

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        pending = self.model.pending()
        if not pending:
            self.clients[0].cancel(12345)
            return
        asked = data.draw(st.sampled_from(pending), "request")
        asked.client.cancel(asked.call)
        self.model.end(asked, Status.STATUS_CANCELLED)

    @rule(slot=st.one_of(st.none(), SLOTS))
    def die(self, slot: int | None) -> None:
        client = self.slot_of_owner_or(slot)
        client.die()
        self.model.die(client)
        assert not client.state.pending
        self.clients[self.clients.index(client)] = self.harness.client()

    @rule(sure=st.integers(0, 2))
    def revoke(self, sure: int) -> None:
        if sure != 2:
            return
        assert self.harness.revoke() is self.model.owner
        self.model.revoke()

    @rule(sure=st.integers(0, 2))
    def pause(self, sure: int) -> None:
        if sure == 2:
            assert self.harness.pause() is self.model.is_paused
            self.model.pause()

    @rule()
    def resume(self) -> None:
        assert self.harness.resume() is self.model.is_paused
        self.model.resume()

    @rule(slot=SLOTS, is_on=st.sampled_from((True, False, False)))
    def drain(self, slot: int, is_on: bool) -> None:
        client = self.clients[slot]
        self.harness.drain(client, is_on=is_on)
        self.model.drain(client, is_on=is_on)

    @rule(is_failing=st.booleans())
    def fail_or_recover(self, is_failing: bool) -> None:
        self.harness.port.recover()
        if is_failing:
            self.harness.port.fail("write_data")
        self.model.is_failing = is_failing

    @rule(by_ms=st.one_of(st.integers(0, 250), st.integers(0, 1000)))
    def wait(self, by_ms: int) -> None:
        until_ns = self.harness.now_ns + by_ms * MS
        self.harness.advance(by_ms * MS)
        while (due_ns := self.model.next_due_ns()) is not None and due_ns <= until_ns:
            self.model.now_ns = due_ns
            self.model.run_due()
        self.model.now_ns = until_ns

    @rule()
    def read_notices(self) -> None:
        """No notice is stale when it is sent."""
        model = self.model
        checked = set()
        for client in self.clients:
            for method, params in client.told():
                if method == PORT_CHECK:
                    checked.add(client)
                elif method == WAITERS:
                    assert model.owner is client
                    assert params == (len(model.queue),)
                    self.waiters = (model.grant, len(model.queue))
                elif method == LEASE:
                    assert model.owner is client
                    assert model.is_near(params[0]), "averted"
                elif method == REVOKED:
                    assert model.owner is not client
                else:
                    assert method == QUEUED
                    places = {each.call: place for place, each in enumerate(model.queue, 1)}
                    call = client.calls[params[0]]
                    assert places[call] <= params[1], "told of a place in front of its own"
                    self.positions[call] = params[1]
        assert checked == model.to_check
        model.to_check.clear()

    @precondition(lambda self: self.model.queue)
    @rule()
    def all_are_told_before_long(self) -> None:
        state = None
        while state != (state := (self.model.grant, list(self.model.queue))):  # until nothing has happened meanwhile
            for _ in range(3):
                self.read_notices()
                self.wait(100)
        for place, asked in enumerate(self.model.queue, 1):
            assert self.positions[asked.call] == place
        if self.model.queue and self.model.owner is not None:
            assert self.waiters == (self.model.grant, len(self.model.queue))

    @invariant()
    def every_request_has_its_answer(self) -> None:
        for asked in self.asked:
            call, expected = asked.call, asked.expected
            if expected is None:
                assert call.is_pending
            elif isinstance(expected, Status):
                assert call.status == expected
            else:
                assert call.value == expected
        self.asked = self.model.pending()

    @invariant()
    def the_port_is_as_expected(self) -> None:
        ownership = self.harness.driver.ownership
        assert self.harness.owner is self.model.owner
        assert ownership.grant == self.model.grant
        assert [waiter.request.session for waiter in ownership.waiters()] == [
            each.client.state for each in self.model.queue
        ]
        assert ownership.owner is not None or not ownership.waiting or self.model.is_paused or self.model.drainers
        assert self.harness.port.data == self.model.data

    @invariant()
    def owners_are_warned_once_and_in_time(self) -> None:
        self.harness.settle()
        warned = [(now_ns, client, key[1]) for now_ns, client, key in self.harness.notified if key[0] == LEASE]
        assert len(set(warned)) == len(warned)
        assert set(warned) == self.model.warned

    def teardown(self) -> None:
        if not hasattr(self, "harness"):
            return
        told: dict[tuple[Client, tuple[object, ...]], int] = {}
        for now_ns, client, key in self.harness.notified:
            if key[0] == QUEUED:
                assert now_ns - told.get((client, key), 0) >= NOTICE_INTERVAL_NS, "told too often"
            told[client, key] = now_ns


TestQueueModel = QueueMachine.TestCase
TestQueueModel.settings = settings(max_examples=150, stateful_step_count=40)
