"""Log records for systemd's journal, with their fields, in its native protocol.

One record is one datagram of fields. Each is a line `NAME=value`; where the value has line breaks: the line `NAME`, the
value's length as 8 bytes, little-endian, the value, a line break.

The journal reads at its own pace and the daemon never waits for it: what it does not take at once is dropped, counted,
and told of before the next record that it takes.

Source: systemd, docs/JOURNAL_NATIVE_PROTOCOL.md.
"""

from __future__ import annotations

import logging
import os
import socket
import struct
from typing import Final

SOCKET_PATH: Final = "/run/systemd/journal/socket"
# Far below what a datagram can have (about 200 KiB), so that no record needs a file instead: a longer text is cut.
VALUE_MAX_BYTES: Final = 32 * 1024
_CUT: Final = b" ... (cut)"
_LENGTH: Final = struct.Struct("<Q")
_STANDARD_ERROR: Final = 2
# syslog(3); from the highest level on.
_PRIORITIES: Final = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
_DEBUG_PRIORITY: Final = 7
# What a record may say of its context, and the field for it.
_CONTEXT: Final = (
    ("port", "LPT_PORT"),
    ("session", "LPT_SESSION"),
    ("client", "LPT_CLIENT"),
    ("identity", "LPT_IDENTITY"),
    ("event", "LPT_EVENT"),
    ("grant", "LPT_GRANT"),
)


def is_standard_error() -> bool:
    """Whether standard error is connected to the journal: $JOURNAL_STREAM names its device and inode."""
    try:
        found = os.fstat(_STANDARD_ERROR)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def encode(fields: dict[str, str]) -> bytes:
    """A record as the journal reads it; values beyond VALUE_MAX_BYTES are cut."""
    parts: list[bytes] = []
    for name, text in fields.items():
        value = text.encode(errors="replace")
        if len(value) > VALUE_MAX_BYTES:
            value = value[: VALUE_MAX_BYTES - len(_CUT)] + _CUT
        if b"\n" in value:
            parts += (name.encode(), b"\n", _LENGTH.pack(len(value)), value, b"\n")
        else:
            parts += (name.encode(), b"=", value, b"\n")
    return b"".join(parts)


class JournalHandler(logging.Handler):
    """Sends records to the journal; the formatter makes MESSAGE.

    Resource handling: one datagram socket, until `close`.

    Attributes:
        dropped: records that were not taken since the last one that was.
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        self.dropped = 0
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record, or count it as dropped; never waits, never raises."""
        try:
            data = encode(self._fields(record))
        except Exception:
            self.handleError(record)
            return
        if self.dropped and self._send(encode(_told_of_loss(self.dropped))):
            self.dropped = 0
        if not self._send(data):
            self.dropped += 1

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()
        super().close()

    def _send(self, data: bytes) -> bool:
        try:
            self._socket.sendto(data, self._path)  # by its path: the journal may have been restarted
        except OSError:
            return False
        return True

    def _fields(self, record: logging.LogRecord) -> dict[str, str]:
        fields = {
            "MESSAGE": self.format(record),
            "PRIORITY": str(next((to for level, to in _PRIORITIES if record.levelno >= level), _DEBUG_PRIORITY)),
            "SYSLOG_IDENTIFIER": "lptd",
            "LOGGER": record.name,
            "CODE_FILE": record.pathname,
            "CODE_LINE": str(record.lineno),
            "CODE_FUNC": record.funcName or "",
        }
        for attribute, field in _CONTEXT:
            value = getattr(record, attribute, None)
            if value is not None:
                fields[field] = str(value)
        return fields


def _told_of_loss(count: int) -> dict[str, str]:
    text = f"{count} log lines are missing here: the journal did not take them"
    return {"MESSAGE": text, "PRIORITY": "4", "SYSLOG_IDENTIFIER": "lptd"}
