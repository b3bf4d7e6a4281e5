"""A port that may fail at any access, and go away at any: whatever happens, nothing is left hanging."""

from __future__ import annotations

import contextlib

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lpt_service.core.function_driver import PortState
from lpt_service.protocol.errors import RequestError
from lpt_service.protocol.ioctl import Ioctl
from lpt_service.protocol.status import Status
from lpt_service.protocol.structs import FROB
from tests.core.fakes import FakePort
from tests.core.harness import MS, SECOND, STREAM, Call, Client, Harness, routine

SLOTS = st.integers(0, 3)
STRUCTURES = st.sampled_from((routine(isr=1), routine(isr=2, deferred=3), routine(deferred=4)))
TIMEOUTS = st.one_of(st.none(), st.integers(0, 30))
METHODS = ("read_data", "read_status", "read_control", "write_data", "write_control", "take_interrupts")


class FaultMachine(RuleBasedStateMachine):
    """No model: only what holds at all times."""

    @initialize(can_disable=st.booleans(), safe=st.booleans(), lease_ms=st.sampled_from((0, 25, 400)))
    def begin(self, can_disable: bool, safe: bool, lease_ms: int) -> None:
        self.harness = Harness(
            FakePort(can_disable_interrupt=can_disable),
            safe_data=0xAA if safe else None,
            safe_control=0x0C if safe else None,
            interrupt_log_frames=8,
            interrupt_linger_ns=20 * MS,
            max_interrupt_rate_hz=20,
            max_waiters=2,
            max_pending_requests=3,
            max_hold_ns=lease_ms * MS,
            idle_hold_ns=2 * lease_ms * MS,
            hold_warning_ns=10 * MS,
        )
        self.clients = self.harness.clients(4)
        self.is_sound = True  # the port has not failed yet

    def owner_or(self, slot: int | None) -> Client:
        return self.harness.owner if slot is None and self.harness.owner else self.clients[slot or 0]

    def options(self, timeout_ms: int | None) -> dict[str, int]:
        return {} if timeout_ms is None else {"timeout_ms": timeout_ms}

    @rule(slot=SLOTS, timeout_ms=TIMEOUTS)
    def allocate(self, slot: int, timeout_ms: int | None) -> None:
        self.clients[slot].allocate(**self.options(timeout_ms))

    @rule(slot=SLOTS)
    def try_allocate(self, slot: int) -> None:
        self.clients[slot].try_allocate()

    @rule(slot=st.one_of(st.none(), SLOTS))
    def free(self, slot: int | None) -> None:
        self.owner_or(slot).free()

    @rule(slot=st.one_of(st.none(), SLOTS), offset=st.integers(0, 3), value=st.integers(0, 255))
    def write_and_read(self, slot: int | None, offset: int, value: int) -> None:
        client = self.owner_or(slot)
        client.write(offset, value)
        client.read(offset)
        client.send(Ioctl.FROB_CONTROL, FROB.pack(value, 0xFF), 1)

    @rule(slot=st.one_of(st.none(), SLOTS), width_us=st.integers(1, 20_000), timeout_ms=TIMEOUTS)
    def pulse(self, slot: int | None, width_us: int, timeout_ms: int | None) -> None:
        self.owner_or(slot).pulse(1, 2, width_us, **self.options(timeout_ms))

    @rule(slot=SLOTS, structure=STRUCTURES, from_seq=st.one_of(st.none(), st.integers(0, 30)))
    def connect(self, slot: int, structure: bytes, from_seq: int | None) -> None:
        if from_seq is None:
            self.clients[slot].connect(structure)
        else:
            self.clients[slot].connect(structure, from_=(STREAM, from_seq))

    @rule(slot=SLOTS, structure=STRUCTURES)
    def disconnect(self, slot: int, structure: bytes) -> None:
        self.clients[slot].disconnect(structure)

    @rule(slot=SLOTS, data=st.data())
    def cancel(self, slot: int, data: st.DataObject) -> None:
        client = self.clients[slot]
        pending = sorted(client.state.pending)
        client.cancel(data.draw(st.sampled_from(pending), "msgid") if pending else 7)

    @rule(slot=st.one_of(st.none(), SLOTS))
    def die(self, slot: int | None) -> None:
        client = self.owner_or(slot)
        client.die()
        self.clients[self.clients.index(client)] = self.harness.client()

    @rule()
    def revoke(self) -> None:
        owner = self.harness.owner
        assert self.harness.revoke() is owner
        assert owner is None or self.harness.owner is not owner

    @rule(sure=st.integers(0, 1))
    def pause(self, sure: int) -> None:
        if sure:
            self.harness.pause()
            assert self.harness.owner is None

    @rule()
    def resume(self) -> None:
        with contextlib.suppress(RequestError):  # the device fails: it is paused still
            self.harness.resume()
            assert self.harness.driver.paused is None
        self.harness.carry_out()

    @rule(slot=SLOTS, is_on=st.sampled_from((True, False, False)))
    def drain(self, slot: int, is_on: bool) -> None:
        self.harness.drain(self.clients[slot], is_on=is_on)

    @rule(hold_ms=st.sampled_from((0, 5, 100)))
    def reload(self, hold_ms: int) -> None:
        self.harness.reconfigure(max_hold_ns=hold_ms * MS, idle_hold_ns=hold_ms * MS)

    @rule(count=st.integers(1, 30))
    def interrupt(self, count: int) -> None:
        self.harness.interrupt(count)

    @rule(by_ms=st.one_of(st.integers(0, 30), st.just(1000)))
    def wait(self, by_ms: int) -> None:
        self.harness.advance(by_ms * MS)

    @rule(slot=SLOTS)
    def hear(self, slot: int) -> None:
        self.clients[slot].hear(2)
        self.clients[slot].told()

    @rule(methods=st.sets(st.sampled_from((*METHODS, "set_interrupt_enable"))), after=st.integers(0, 2))
    def fail(self, methods: set[str], after: int) -> None:
        self.harness.port.recover()
        self.harness.port.fail(*methods, after=after)
        self.is_sound = self.is_sound and not methods

    @precondition(lambda self: self.harness.port.gone_at is None)
    @rule(after=st.integers(1, 12), sure=st.integers(0, 5))
    def go(self, after: int, sure: int) -> None:
        if sure == 5:
            self.harness.port.gone_at = self.harness.port.accesses + after

    @invariant()
    def the_queue_is_in_order(self) -> None:
        ownership = self.harness.driver.ownership
        assert self.harness.owner is None or self.harness.owner.is_alive
        assert ownership.owner is None or self.harness.driver.paused is None
        assert ownership.owner is not None or not ownership.waiting or not ownership.is_open
        arbiter = self.harness.driver.arbiter
        assert not (arbiter.is_check_owed and ownership.is_available) or self.harness.gone is not None
        assert (self.harness.driver.job is None) is (self.harness.job is None)
        assert not self.harness.driver.effects

    @invariant()
    def every_request_without_an_answer_is_known(self) -> None:
        for client in self.clients:
            unanswered = {msgid for msgid, call in client.calls.items() if call.is_pending}
            fences = {each.fence.msgid for each in client.passages if each.fence is not None and not each.is_over}
            assert unanswered == client.state.pending.keys() | fences

    @invariant()
    def the_source_is_watched_exactly_while_it_is_heard(self) -> None:
        registry = self.harness.driver.registry
        assert self.harness.is_watched is registry.is_heard
        assert all(self.client_of(each.session).is_alive for each in registry)
        if self.is_sound and self.harness.gone is None:
            self.harness.is_listening()

    def client_of(self, session: object) -> Client:
        return next(client for client in self.clients if client.state is session)

    @invariant()
    def a_port_that_is_gone_holds_nobody(self) -> None:
        driver = self.harness.driver
        assert (driver.state is PortState.READY) is (self.harness.gone is None)
        if self.harness.gone is not None:
            assert self.harness.owner is None
            assert len(driver.registry) == 0
            assert not any(client.state.pending for client in self.clients)
            assert self.clients[0].allocate().status == Status.STATUS_DELETE_PENDING

    def teardown(self) -> None:
        if not hasattr(self, "harness"):
            return
        fences: list[Call] = []
        for client in self.clients:
            client.hear()
            fences += [passage.fence for passage in client.passages if passage.fence is not None]
            client.die()
        assert not any(fence.is_pending for fence in fences)
        driver = self.harness.driver
        assert driver.ownership.owner is None
        assert driver.ownership.waiting == len(driver.registry) == 0
        self.harness.advance(100 * SECOND)
        assert not self.harness.is_watched
        assert len(driver.deadlines) == 0


TestFaults = FaultMachine.TestCase
TestFaults.settings = settings(max_examples=150, stateful_step_count=40)
