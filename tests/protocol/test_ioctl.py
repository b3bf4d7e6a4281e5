"""The table of control codes equals the contract's."""

from typing import NamedTuple

import pytest

from lpt_service.protocol import ioctl
from lpt_service.protocol.ioctl import CONTROL_CODES, Ioctl, IoctlClass, ctl_code


class Row(NamedTuple):
    """A row of the contract: function, code, name, least sizes of input and output."""

    function: int
    code: int
    name: str
    input_bytes: int
    output_bytes: int


CONTRACT = (
    Row(11, 0x16002C, "IOCTL_INTERNAL_PARALLEL_PORT_ALLOCATE", 0, 0),
    Row(40, 0x1600A0, "IOCTL_INTERNAL_PARALLEL_PORT_FREE", 0, 0),
    Row(12, 0x160030, "IOCTL_INTERNAL_GET_PARALLEL_PORT_INFO", 0, 56),
    Row(15, 0x16003C, "IOCTL_INTERNAL_RELEASE_PARALLEL_PORT_INFO", 0, 0),
    Row(17, 0x160044, "IOCTL_INTERNAL_GET_MORE_PARALLEL_PORT_INFO", 0, 32),
    Row(21, 0x160054, "IOCTL_INTERNAL_GET_PARALLEL_PNP_INFO", 0, 112),
    Row(13, 0x160034, "IOCTL_INTERNAL_PARALLEL_CONNECT_INTERRUPT", 32, 32),
    Row(14, 0x160038, "IOCTL_INTERNAL_PARALLEL_DISCONNECT_INTERRUPT", 32, 0),
    Row(0x800, 0x162000, "IOCTL_LPT_TRY_ALLOCATE_PORT", 8, 1),
    Row(0x801, 0x162004, "IOCTL_LPT_FREE_PORT", 8, 0),
    Row(0x802, 0x162008, "IOCTL_LPT_QUERY_NUM_WAITERS", 8, 4),
    Row(0x803, 0x16200C, "IOCTL_LPT_TRY_ALLOCATE_PORT_AT_INTERRUPT_LEVEL", 8, 1),
    Row(0x804, 0x162010, "IOCTL_LPT_FREE_PORT_FROM_INTERRUPT_LEVEL", 8, 0),
    Row(0x810, 0x162040, "IOCTL_LPT_READ_PORT_UCHAR", 1, 1),
    Row(0x811, 0x162044, "IOCTL_LPT_WRITE_PORT_UCHAR", 2, 0),
    Row(0x812, 0x162048, "IOCTL_LPT_FROB_CONTROL", 2, 1),
    Row(0x813, 0x16204C, "IOCTL_LPT_PULSE", 6, 16),
)


def named(predicate: str) -> set[str]:
    """The codes (by name, without prefix) whose row says so."""
    return {row.code.name for row in CONTROL_CODES if getattr(row, predicate)}


def test_the_table_is_the_contract() -> None:
    rows = {Row(row.function, row.code, row.name, row.input_bytes, row.output_bytes) for row in CONTROL_CODES}
    assert rows == set(CONTRACT)
    assert len(CONTROL_CODES) == len(CONTRACT), "each code once"
    assert {row.code for row in CONTROL_CODES} == set(Ioctl)


@pytest.mark.parametrize("row", CONTRACT, ids=lambda row: row.name)
def test_codes_are_ctl_codes(row: Row) -> None:
    device_type, method, access = 0x16, 0, 0  # FILE_DEVICE_PARALLEL_PORT, METHOD_BUFFERED, FILE_ANY_ACCESS
    assert row.code == device_type << 16 | access << 14 | row.function << 2 | method
    assert ctl_code(row.function) == row.code


def test_who_may_call() -> None:
    assert named("owner_only") == {"WRITE_PORT_UCHAR", "FROB_CONTROL", "PULSE"}
    assert named("gated") == {"PARALLEL_CONNECT_INTERRUPT"}
    assert named("takes_context") == {
        "TRY_ALLOCATE_PORT",
        "FREE_PORT",
        "QUERY_NUM_WAITERS",
        "TRY_ALLOCATE_PORT_AT_INTERRUPT_LEVEL",
        "FREE_PORT_FROM_INTERRUPT_LEVEL",
    }


def test_what_waits_behind_a_job_is_what_needs_the_port() -> None:
    assert set(Ioctl.__members__) - named("needs_port") == {
        "GET_PARALLEL_PORT_INFO",
        "RELEASE_PARALLEL_PORT_INFO",
        "GET_MORE_PARALLEL_PORT_INFO",
        "GET_PARALLEL_PNP_INFO",
        "PARALLEL_CONNECT_INTERRUPT",
        "PARALLEL_DISCONNECT_INTERRUPT",
        "QUERY_NUM_WAITERS",
    }


def test_windows_codes_are_internal_and_ours_are_both() -> None:
    for row in CONTROL_CODES:
        is_windows = row.function < 0x800
        assert row.classes == ((IoctlClass.INTERNAL,) if is_windows else (IoctlClass.INTERNAL, IoctlClass.DEVICE))


def test_classes_are_the_methods_on_the_wire() -> None:
    assert [member.value for member in IoctlClass] == ["internal_device_control", "device_control"]


def test_registers_and_their_bits() -> None:
    assert (ioctl.DATA, ioctl.STATUS, ioctl.CONTROL) == (0, 1, 2)
    for bit, name in enumerate(("NERROR", "SELECT", "PAPER_END", "NACK", "NBUSY"), 3):
        assert getattr(ioctl, f"STATUS_{name}") == 1 << bit
    for bit, name in enumerate(("STROBE", "AUTOFD", "INIT", "SELECT_IN", "INTERRUPT_ENABLE", "DIRECTION_INPUT")):
        assert getattr(ioctl, f"CONTROL_{name}") == 1 << bit


def test_bounds() -> None:
    assert ioctl.PULSE_WIDTH_MAX_US == 10 * 1_000_000, "10 s"
    assert ioctl.RESERVED_ROUTINES == 2**63
