"""Text from elsewhere: escaped for display; byte order marks, UTF-16; times of day."""

from __future__ import annotations

from datetime import datetime, timezone

UTF8_MARK = b"\xef\xbb\xbf"  # the byte order mark that editors on Windows put before a text
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


def escape(text: object) -> str:
    r"""`text` on one line, and without power over a terminal: \x1b instead of the character.

    What others chose (names, paths, values) passes through this before it is printed. Escaped is whatever is not
    printable: control characters, line ends, marks that turn the direction of writing, halves of surrogate pairs, which
    is how Python has bytes that are not UTF-8.
    """
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in str(text)
    )


def is_utf16(data: bytes) -> bool:
    """Whether a file's text is UTF-16: by its byte order mark, or by one byte of its first letter being zero."""
    return data.startswith(_UTF16_MARKS) or b"\0" in data[:2]


def utc(time_s: float) -> str:
    """A time of day, to the second, as ISO 8601 and RFC 3339 have it: 2026-11-30T18:52:10Z."""
    return datetime.fromtimestamp(time_s, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
