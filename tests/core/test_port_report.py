"""What a port tells about itself."""

from __future__ import annotations

from lpt_service.core.port_report import queue_report, status_report
from lpt_service.protocol.codec import CLIENT_LIMITS, encode_result
from lpt_service.protocol.ioctl import Ioctl
from lpt_service.protocol.structs import (
    MORE_PARALLEL_PORT_INFORMATION,
    PARALLEL_PNP_INFORMATION,
    PARALLEL_PORT_INFORMATION,
)
from tests.core.fakes import FakePort
from tests.core.harness import LAST_GRANT, SECOND, STREAM, Harness, routine


def test_port_information_has_callbacks_as_codes_and_the_sessions_handle() -> None:
    client = Harness().client()
    output = client.send(Ioctl.GET_PARALLEL_PORT_INFO, b"", 56).output
    assert output is not None
    assert PARALLEL_PORT_INFORMATION.unpack(output) == PARALLEL_PORT_INFORMATION(
        OriginalController=0,
        Controller=0,
        SpanOfController=3,
        TryAllocatePort=0x162000,
        FreePort=0x162004,
        QueryNumWaiters=0x162008,
        Context=client.state.context,
    )


def test_more_port_information_tells_of_a_latched_interrupt() -> None:
    output = Harness().client().send(Ioctl.GET_MORE_PARALLEL_PORT_INFO, b"", 32).output
    assert output is not None
    assert MORE_PARALLEL_PORT_INFORMATION.unpack(output) == MORE_PARALLEL_PORT_INFORMATION(1, 0, 0, 0, 0, 1)


def test_pnp_information_tells_whether_the_data_lines_can_be_inputs() -> None:
    for is_bidirectional, capabilities in ((True, 8), (False, 0)):
        client = Harness(FakePort(is_bidirectional=is_bidirectional)).client()
        output = client.send(Ioctl.GET_PARALLEL_PNP_INFO, b"", 200).output
        assert output is not None
        expected = PARALLEL_PNP_INFORMATION(HardwareCapabilities=capabilities, Context=client.state.context)
        assert output == expected.pack()


def test_releasing_the_information_always_succeeds() -> None:
    client = Harness().client()
    assert client.send(Ioctl.RELEASE_PARALLEL_PORT_INFO).output == b""


def test_the_status_of_an_idle_port() -> None:
    harness = Harness()
    report = status_report(harness.driver, harness.now_ns)
    assert (report["kind"], report["state"], report["monotonic_ns"]) == ("fake", "ready", harness.now_ns)
    assert (report["owner"], report["waiting"], report["waiters"]) == (None, 0, [])
    assert (report["registered"], report["registrations"]) == (0, [])
    assert report["interrupts"]["enabled"]
    assert not report["interrupts"]["connected"]
    assert report["interrupts"]["stream"] == STREAM
    assert report["counters"] == {"grants": 0, "frees": 0, "forced_releases": 0, "requests": 0, "errors": 0}


def test_the_status_of_a_busy_port() -> None:
    harness = Harness(interrupt_log_frames=2)
    owner, one, two = harness.clients(3)
    owner.allocate()
    owned_ns = harness.now_ns
    harness.advance(SECOND)
    one.allocate()
    two.allocate()
    two.connect(routine(isr=1))
    owner.connect(routine(deferred=1))
    for _ in range(3):
        harness.interrupt(5)
    one.die()
    two.free()

    report = status_report(harness.driver, harness.now_ns)

    who = {"session": 1, "client": "client 1", "peer": "test", "identity": "anonymous"}
    assert report["owner"] == {**who, "grant": LAST_GRANT + 1, "since_ns": owned_ns}
    assert report["waiting"] == 1
    who = {"session": 3, "client": "client 3", "peer": "test", "identity": "anonymous"}
    assert report["waiters"] == [{**who, "position": 1, "since_ns": harness.now_ns}]
    assert report["registered"] == 2
    assert [(each["session"], each["interrupt"], each["deferred"]) for each in report["registrations"]] == [
        (3, True, False),
        (1, False, True),
    ]
    interrupts = report["interrupts"]
    assert (interrupts["connected"], interrupts["generated"], interrupts["log_entries"]) == (True, 15, 2)
    assert (report["counters"]["requests"], report["counters"]["errors"]) == (6, 2)


def test_a_session_that_has_ended_leaves_no_trace() -> None:
    harness = Harness(interrupt_linger_ns=SECOND)
    client, other = harness.clients(2)
    client.allocate()
    client.connect(routine(isr=1, deferred=2))
    other.allocate()
    client.die()
    other.die()
    report = status_report(harness.driver, harness.now_ns)
    assert (report["owner"], report["waiters"], report["registered"]) == (None, [], 0)
    assert report["interrupts"]["lingering"]
    harness.advance(SECOND)
    report = status_report(harness.driver, harness.now_ns)
    assert not report["interrupts"]["lingering"]
    assert not report["interrupts"]["connected"]


def test_the_answer_stays_small_however_many_wait() -> None:
    harness = Harness()
    clients = harness.clients(1000)
    for client in clients:
        client.state.client = "x" * 1000
        client.allocate()
        client.connect(routine(isr=1))
    report = status_report(harness.driver, harness.now_ns)
    assert (report["waiting"], report["registered"]) == (999, 1000)
    assert len(report["waiters"]) == len(report["registrations"]) == 64
    assert len(encode_result(1, report)) < 256 * 1024


def test_a_page_of_the_queue() -> None:
    harness = Harness()
    clients = harness.clients(2003)
    for client in clients:
        client.allocate()
    pages = [queue_report(harness.driver, first) for first in (1, 1001, 2001, 2003)]
    assert [page["waiting"] for page in pages] == [2002] * 4
    assert [len(page["waiters"]) for page in pages] == [1000, 1000, 2, 0]
    assert pages[0]["owner"] == status_report(harness.driver, harness.now_ns)["owner"]
    for page, first in zip(pages, (1, 1001, 2001), strict=False):
        for position, waiter in enumerate(page["waiters"], first):
            assert (waiter["position"], waiter["session"]) == (position, position + 1)
            assert waiter.keys() == {"session", "client", "peer", "identity", "position", "since_ns"}


def test_a_page_of_the_queue_fits_in_a_frame_however_long_the_names_are() -> None:
    harness = Harness()
    clients = harness.clients(1500)
    for client in clients:
        client.state.client = client.state.peer = client.state.identity = "\N{EURO SIGN}" * 300
        client.allocate()
    first, seen = 1, []
    while waiters := (page := queue_report(harness.driver, first))["waiters"]:
        assert len(encode_result(1, page)) < CLIENT_LIMITS.max_frame_bytes - 64 * 1024
        seen += [each["session"] for each in waiters]
        first = waiters[-1]["position"] + 1
    assert seen == [client.state.session for client in clients[1:]]


def test_one_waiter_is_on_a_page_whatever_it_is_called() -> None:
    harness = Harness()
    owner, waiter = harness.clients(2)
    owner.allocate()
    waiter.allocate()
    waiter.state.client = "x" * 600_000
    assert len(queue_report(harness.driver, 1)["waiters"]) == 1


def test_the_lease_and_the_pause_in_the_status() -> None:
    harness = Harness(max_hold_ns=60 * SECOND, idle_hold_ns=1500 * SECOND // 1000, hold_warning_ns=SECOND // 2)
    report = status_report(harness.driver, harness.now_ns)
    lease = {"max_hold_s": 60.0, "idle_hold_s": 1.5, "warning_s": 0.5, "expires_ns": None}
    assert (report["lease"], report["paused"]) == (lease, None)
    harness.client().allocate()
    report = status_report(harness.driver, harness.now_ns)
    assert report["lease"] == {**lease, "expires_ns": harness.now_ns + 3 * SECOND // 2}
    harness.pause("the cable")
    assert status_report(harness.driver, harness.now_ns)["paused"] == "the cable"
    assert status_report(Harness().driver, 0)["lease"] is None
