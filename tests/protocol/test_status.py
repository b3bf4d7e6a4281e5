"""NTSTATUS values: as in [MS-ERREF] 2.3.1."""

import pytest

from lpt_service.protocol.status import Status

VALUES = {
    "STATUS_SUCCESS": 0x00000000,
    "STATUS_PENDING": 0x00000103,
    "STATUS_UNSUCCESSFUL": 0xC0000001,
    "STATUS_INVALID_PARAMETER": 0xC000000D,
    "STATUS_NO_SUCH_DEVICE": 0xC000000E,
    "STATUS_ACCESS_DENIED": 0xC0000022,
    "STATUS_BUFFER_TOO_SMALL": 0xC0000023,
    "STATUS_DELETE_PENDING": 0xC0000056,
    "STATUS_INSUFFICIENT_RESOURCES": 0xC000009A,
    "STATUS_DEVICE_NOT_CONNECTED": 0xC000009D,
    "STATUS_DEVICE_NOT_READY": 0xC00000A3,
    "STATUS_IO_TIMEOUT": 0xC00000B5,
    "STATUS_NOT_SUPPORTED": 0xC00000BB,
    "STATUS_CANCELLED": 0xC0000120,
    "STATUS_INVALID_DEVICE_STATE": 0xC0000184,
    "STATUS_IO_DEVICE_ERROR": 0xC0000185,
}


def test_values() -> None:
    assert {name: status.value for name, status in Status.__members__.items()} == VALUES


@pytest.mark.parametrize("status", Status)
def test_severity(status: Status) -> None:
    assert status.is_error is (status not in (Status.STATUS_SUCCESS, Status.STATUS_PENDING))


def test_names() -> None:
    assert Status.name_of(0xC0000022) == "STATUS_ACCESS_DENIED"
    assert Status.name_of(Status.STATUS_PENDING) == "STATUS_PENDING"
    assert Status.name_of(0xC00002B6) == "0xC00002B6", "one that a newer daemon may send"
    assert Status.name_of(0x1) == "0x00000001"
