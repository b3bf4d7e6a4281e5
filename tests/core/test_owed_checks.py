"""Semantic 6 where nobody may be granted: a check that fell due is owed until the port can be had, or is had.

A port is kept vacant (drained, paused), its queue becomes empty in one of all ways, and the port is let go again.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lpt_service.protocol.messages import PORT_CHECK
from lpt_service.protocol.status import Status
from tests.core.harness import MS, SECOND, Call, Harness, routine


class Scene:
    """A owns and B waits; somebody has a deferred check; an administrator keeps the port vacant in one of two ways."""

    def __init__(self, keeps: str) -> None:
        self.harness = Harness(safe_data=0xAA, max_hold_ns=SECOND, hold_warning_ns=0)
        self.owner, self.waiter, self.listener, self.admin = self.harness.clients(4)
        self.listener.connect(routine(deferred=5))
        self.keeps = keeps
        self.owner.allocate()
        self.wait()

    def wait(self) -> None:
        self.call = self.waiter.allocate(timeout_ms=500)

    def keep(self, *, is_on: bool) -> None:
        """Drain or pause the port, or end that."""
        if self.keeps == "pause":
            assert (self.harness.pause if is_on else self.harness.resume)() is not is_on
        else:
            self.harness.drain(self.admin, is_on=is_on)

    def vacate(self) -> None:
        if self.keeps == "drain":
            self.owner.free()
        assert self.harness.owner is None

    def told(self) -> int:
        """How many checks there were since this was asked last."""
        return len(self.listener.told(PORT_CHECK))


def cancel(scene: Scene) -> None:
    scene.waiter.cancel(scene.call)


def time_out(scene: Scene) -> None:
    scene.harness.advance(500 * MS)
    assert scene.call.status == Status.STATUS_IO_TIMEOUT


def end(scene: Scene) -> None:
    """Also a kick, the end of the time of grace, a role that was taken away: all release what the session holds."""
    scene.waiter.die()


def come_and_go(scene: Scene) -> None:
    """Several that come while it is kept vacant, and go in any order."""
    late = scene.harness.client()
    later: Call = late.allocate()
    scene.waiter.cancel(scene.call)
    late.cancel(later)


def fail(scene: Scene) -> None:
    """The lines cannot be made safe when the port is let go: whoever waits is refused."""
    scene.harness.driver.arbiter.is_safe = False
    scene.harness.port.fail("write_data")


LEAVING: list[Callable[[Scene], None]] = [cancel, time_out, end, come_and_go, fail]


@pytest.fixture(params=["drain", "pause"])
def scene(request: pytest.FixtureRequest) -> Scene:
    return Scene(request.param)


@pytest.mark.parametrize("leave", LEAVING)
def test_semantic_06_a_queue_that_becomes_empty_leaves_the_check_owed(
    scene: Scene, leave: Callable[[Scene], None]
) -> None:
    scene.keep(is_on=True)
    scene.vacate()
    leave(scene)
    assert scene.told() == 0, "it cannot be had yet"
    scene.keep(is_on=False)
    assert scene.harness.owner is None
    assert scene.told() == 1
    scene.keep(is_on=True)
    scene.keep(is_on=False)
    assert scene.told() == 0, "nobody has owned it since"


@pytest.mark.parametrize("leave", LEAVING[:-1])
def test_the_queue_may_be_empty_before_the_port_is_vacant(scene: Scene, leave: Callable[[Scene], None]) -> None:
    leave(scene)
    scene.keep(is_on=True)
    scene.vacate()
    assert scene.told() == 0
    scene.keep(is_on=False)
    assert scene.told() == 1


def test_a_check_that_is_connected_meanwhile_is_told_too_and_one_that_is_gone_is_not(scene: Scene) -> None:
    scene.keep(is_on=True)
    scene.vacate()
    late = scene.harness.client()
    late.connect(routine(deferred=6))
    scene.listener.disconnect(routine(deferred=5))
    cancel(scene)
    scene.keep(is_on=False)
    assert scene.told() == 0
    assert late.told(PORT_CHECK) == [(PORT_CHECK, (6, 0))]


def test_none_is_owed_once_somebody_has_it(scene: Scene) -> None:
    """A hand-off at last; what comes after that is another ownership."""
    scene.keep(is_on=True)
    scene.vacate()
    scene.keep(is_on=False)
    assert scene.harness.owner is scene.waiter
    assert scene.told() == 0
    scene.wait()  # refused: it owns
    scene.waiter.free()
    assert scene.told() == 1


def test_none_is_owed_by_a_port_that_nobody_has_owned(scene: Scene) -> None:
    cancel(scene)
    scene.owner.free()
    assert scene.told() == 1
    scene.keep(is_on=True)
    scene.wait()
    cancel(scene)
    scene.keep(is_on=False)
    assert scene.told() == 0


@pytest.mark.parametrize("is_forced", [False, True])
def test_an_owner_that_is_lost_while_it_is_drained_leaves_a_check_too(is_forced: bool) -> None:
    scene = Scene("drain")
    cancel(scene)
    scene.keep(is_on=True)
    if is_forced:
        scene.harness.revoke()
    else:
        scene.owner.die()
    assert scene.told() == 0
    scene.admin.die()
    assert scene.told() == 1


def test_drained_and_paused_it_is_told_when_both_are_over() -> None:
    scene = Scene("drain")
    cancel(scene)
    scene.keep(is_on=True)
    scene.harness.pause()
    scene.keep(is_on=False)
    assert scene.told() == 0
    scene.keep(is_on=True)
    scene.harness.resume()
    assert scene.told() == 0
    scene.keep(is_on=False)
    assert scene.told() == 1
