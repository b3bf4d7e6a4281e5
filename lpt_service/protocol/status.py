"""NTSTATUS values that this protocol uses.

Source: [MS-ERREF] 2.3.1. The names are what a client sees in an error: `[status, name, detail]`.
"""

from enum import IntEnum


class Status(IntEnum):
    """An NTSTATUS. The two top bits are its severity: 0 success, 1 informational, 2 warning, 3 error."""

    STATUS_SUCCESS = 0x00000000
    STATUS_PENDING = 0x00000103
    STATUS_UNSUCCESSFUL = 0xC0000001
    STATUS_INVALID_PARAMETER = 0xC000000D
    STATUS_NO_SUCH_DEVICE = 0xC000000E
    STATUS_ACCESS_DENIED = 0xC0000022
    STATUS_BUFFER_TOO_SMALL = 0xC0000023
    STATUS_DELETE_PENDING = 0xC0000056
    STATUS_INSUFFICIENT_RESOURCES = 0xC000009A
    STATUS_DEVICE_NOT_CONNECTED = 0xC000009D
    STATUS_DEVICE_NOT_READY = 0xC00000A3
    STATUS_IO_TIMEOUT = 0xC00000B5
    STATUS_NOT_SUPPORTED = 0xC00000BB
    STATUS_CANCELLED = 0xC0000120
    STATUS_INVALID_DEVICE_STATE = 0xC0000184
    STATUS_IO_DEVICE_ERROR = 0xC0000185

    @property
    def is_error(self) -> bool:
        """True when the severity is "error"."""
        return self >> 30 == 3

    @classmethod
    def name_of(cls, value: int) -> str:
        """The name of `value`, or its number in hex where this version does not know it."""
        try:
            return cls(value).name
        except ValueError:
            return f"0x{value:08X}"
