"""Of several things wrong with a control request the contract says which is reported: every code, every pair."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, Final

import pytest

from lpt_service.protocol.ioctl import CONTROL_CODES, RESERVED_ROUTINES, ControlCode, Ioctl, IoctlClass, Role
from lpt_service.protocol.status import Status
from lpt_service.protocol.structs import PULSE, U64
from tests.core.harness import Client, Harness, routine


@dataclass
class Scene:
    """A client that owns the port, and a request of it with which nothing is wrong yet."""

    row: ControlCode
    harness: Harness = field(default_factory=Harness)

    def __post_init__(self) -> None:
        self.client: Client = self.harness.client()
        self.grant = self.client.allocate().value
        self.io_class = IoctlClass.INTERNAL
        self.input: Any = self.client.handle if self.row.takes_context else INPUTS.get(self.row.code, b"")
        self.output_length: Any = self.row.output_bytes
        self.options: dict[str, Any] = {}

    def ask(self) -> tuple[int, str]:
        """The status of the answer, and its detail."""
        call = self.client.send(self.row.code, self.input, self.output_length, io_class=self.io_class, **self.options)
        assert not call.is_pending
        return call.status, "" if call.error is None else call.error.detail


INPUTS: Final = {
    Ioctl.PARALLEL_CONNECT_INTERRUPT: routine(isr=1, deferred=2),
    Ioctl.PARALLEL_DISCONNECT_INTERRUPT: routine(isr=1),
    Ioctl.READ_PORT_UCHAR: b"\0",
    Ioctl.WRITE_PORT_UCHAR: b"\0\1",
    Ioctl.FROB_CONTROL: b"\1\1",
    Ioctl.PULSE: PULSE.pack(1, 0, 10),
}
# What the code itself asks of its values, and of the state.
VALUES: Final = {
    Ioctl.PARALLEL_CONNECT_INTERRUPT: routine(isr=RESERVED_ROUTINES, deferred=2),
    Ioctl.READ_PORT_UCHAR: b"\3",
    Ioctl.WRITE_PORT_UCHAR: b"\1\1",
    Ioctl.PULSE: PULSE.pack(1, 0, 0),
}
TOUCHES_DEVICE: Final = (Ioctl.READ_PORT_UCHAR, Ioctl.WRITE_PORT_UCHAR, Ioctl.FROB_CONTROL, Ioctl.PULSE)


def needs_use(row: ControlCode) -> bool:
    return row.role is Role.USE or row.code == Ioctl.PARALLEL_CONNECT_INTERRUPT


def wrong_class(scene: Scene) -> None:
    scene.io_class = IoctlClass.DEVICE


def wrong_type(scene: Scene) -> None:
    scene.input = tuple(scene.input)


def wrong_length_type(scene: Scene) -> None:
    scene.output_length = -1


def wrong_option(scene: Scene) -> None:
    scene.options["priority"] = 1


def removed(scene: Scene) -> None:
    scene.harness.port.go()
    scene.harness.driver.check_present(scene.harness.now_ns)
    scene.harness.carry_out()


def disabled(scene: Scene) -> None:
    scene.harness.reconfigure(enable_connect_interrupt=False)


def observer(scene: Scene) -> None:
    scene.client.state.role = Role.OBSERVE


def short_input(scene: Scene) -> None:
    scene.input = scene.input[:-1]


def short_output(scene: Scene) -> None:
    scene.output_length = scene.row.output_bytes - 1


def paused(scene: Scene) -> None:
    scene.harness.pause()


def wrong_grant(scene: Scene) -> None:
    scene.options["grant"] = scene.grant + 1


def wrong_context(scene: Scene) -> None:
    scene.input = U64.pack(scene.client.state.context + 1)


def no_owner(scene: Scene) -> None:
    scene.harness.revoke()


def wrong_value(scene: Scene) -> None:
    scene.input = VALUES[scene.row.code] + scene.input[len(VALUES[scene.row.code]) :]


@dataclass(frozen=True)
class Wrong:
    """One thing that can be wrong: with which codes, and what is said of it."""

    do: Callable[[Scene], None]
    status: Status
    detail: str
    applies: Callable[[ControlCode], bool] = lambda row: True


# In the order of the contract.
WRONGS: Final = (
    Wrong(wrong_class, Status.STATUS_INVALID_PARAMETER, "code: ", lambda row: len(row.classes) == 1),
    Wrong(wrong_type, Status.STATUS_INVALID_PARAMETER, "input: "),
    Wrong(wrong_length_type, Status.STATUS_INVALID_PARAMETER, "output_length: "),
    Wrong(wrong_option, Status.STATUS_INVALID_PARAMETER, "options: "),
    Wrong(removed, Status.STATUS_DELETE_PENDING, "port "),
    Wrong(disabled, Status.STATUS_UNSUCCESSFUL, "connecting ", lambda row: row.gated),
    Wrong(observer, Status.STATUS_ACCESS_DENIED, "role: ", needs_use),
    Wrong(short_input, Status.STATUS_BUFFER_TOO_SMALL, "input is", lambda row: row.input_bytes > 0),
    Wrong(short_output, Status.STATUS_BUFFER_TOO_SMALL, "output_length is", lambda row: row.output_bytes > 0),
    Wrong(paused, Status.STATUS_DEVICE_NOT_READY, "port ", lambda row: row.code in TOUCHES_DEVICE),
    Wrong(wrong_grant, Status.STATUS_ACCESS_DENIED, "grant "),
    Wrong(wrong_context, Status.STATUS_INVALID_PARAMETER, "context: ", lambda row: row.takes_context),
    Wrong(no_owner, Status.STATUS_ACCESS_DENIED, "IOCTL_LPT_", lambda row: row.owner_only),
    Wrong(wrong_value, Status.STATUS_INVALID_PARAMETER, "", lambda row: row.code in VALUES),
)


def spoil(scene: Scene, *wrongs: Wrong) -> None:
    """Let these be wrong: what changes the input's bytes first, then its length, then its type."""
    for each in sorted(wrongs, key=lambda wrong: ORDER_OF_SPOILING.get(wrong.do, 0)):
        each.do(scene)


ORDER_OF_SPOILING: Final[dict[Callable[[Scene], None], int]] = {
    short_input: 1,
    short_output: 1,
    wrong_type: 2,
    wrong_length_type: 2,
}


def rows_and_wrongs() -> list[Any]:
    return [
        pytest.param(row, [wrong for wrong in WRONGS if wrong.applies(row)], id=row.code.name) for row in CONTROL_CODES
    ]


@pytest.mark.parametrize(("row", "wrongs"), rows_and_wrongs())
def test_of_two_wrong_things_the_first_is_reported(row: ControlCode, wrongs: list[Wrong]) -> None:
    for first, second in combinations(wrongs, 2):
        scene = Scene(row)
        spoil(scene, first, second)
        status, detail = scene.ask()
        named = f"{first.do.__name__} and {second.do.__name__}: {detail}"
        assert status == first.status, named
        assert detail.startswith(first.detail), named


@pytest.mark.parametrize(("row", "wrongs"), rows_and_wrongs())
def test_of_all_that_can_be_wrong_the_first_is_reported(row: ControlCode, wrongs: list[Wrong]) -> None:
    for index, first in enumerate(wrongs):
        scene = Scene(row)
        spoil(scene, *wrongs[index:])
        status, detail = scene.ask()
        assert (status, detail[: len(first.detail)]) == (first.status, first.detail), first.do.__name__


@pytest.mark.parametrize("length", range(33))
def test_an_observer_is_told_of_its_role_as_soon_as_the_input_names_a_deferred_check(length: int) -> None:
    """Shorter than that, nobody can know what is being connected."""
    for structure in (routine(isr=1, deferred=1 << 8), routine(deferred=1)):
        scene = Scene(next(row for row in CONTROL_CODES if row.code == Ioctl.PARALLEL_CONNECT_INTERRUPT))
        observer(scene)
        scene.input = structure[:length]
        is_named = any(scene.input[16:24])
        expected = Status.STATUS_ACCESS_DENIED if is_named else Status.STATUS_BUFFER_TOO_SMALL
        assert scene.ask()[0] == expected


def test_an_observer_may_be_told_of_everything_else() -> None:
    scene = Scene(next(row for row in CONTROL_CODES if row.code == Ioctl.PARALLEL_CONNECT_INTERRUPT))
    observer(scene)
    scene.input = routine(isr=1) + routine(deferred=5)  # longer than it need be
    assert scene.ask() == (Status.STATUS_SUCCESS, "")
