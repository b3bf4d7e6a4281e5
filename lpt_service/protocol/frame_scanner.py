"""Following an incomplete MessagePack object header by header, within limits.

Why not msgpack itself: its streaming decoder waits for the 4 GiB that a header declares, allocates the slots of every
nested array that it has only seen the header of (a 3 KiB frame can hold half a megabyte that way), knows no limit for
nesting, and keeps 40 KiB a connection. This keeps a position and a few counts, and only while a frame is incomplete.

Source: the MessagePack specification, "Formats".
"""

from __future__ import annotations

from dataclasses import dataclass

from lpt_service.protocol.errors import ConversationError


@dataclass(frozen=True)
class Limits:
    """What a receiver takes. Beyond any of these the conversation ends.

    Reasons: the largest structure is 112 bytes, so 64 KiB leaves room for blocks of data; the counts keep a small frame
    from becoming a large object.
    """

    max_frame_bytes: int = 64 * 1024
    max_items: int = 64  # of an array or a map
    max_string_bytes: int = 1024
    max_nesting: int = 8

    def check_frame_bytes(self, frame_bytes: int) -> None:
        """Raise ConversationError if a frame of this many bytes is too large."""
        if frame_bytes > self.max_frame_bytes:
            raise ConversationError(
                f"frame too large: {frame_bytes} bytes or more, the limit is {self.max_frame_bytes}"
            )


# First byte → length of the whole object, for objects of a fixed length.
_FIXED = {
    **dict.fromkeys((*range(0x00, 0x80), *range(0xE0, 0x100), 0xC0, 0xC2, 0xC3), 1),
    **{0xCA: 5, 0xCB: 9, 0xCC: 2, 0xCD: 3, 0xCE: 5, 0xCF: 9, 0xD0: 2, 0xD1: 3, 0xD2: 5, 0xD3: 9},
}
# First byte → (kind, bytes of the length that follows), for objects with a length.
_SIZED = {
    **{0xC4: ("bin", 1), 0xC5: ("bin", 2), 0xC6: ("bin", 4)},
    **{0xD9: ("str", 1), 0xDA: ("str", 2), 0xDB: ("str", 4)},
    **{0xDC: ("array", 2), 0xDD: ("array", 4), 0xDE: ("map", 2), 0xDF: ("map", 4)},
}
_EXTENSIONS = frozenset((*range(0xC7, 0xCA), *range(0xD4, 0xD9)))


class FrameScanner:
    """Finds the end of one MessagePack object in a growing buffer, looking at each header once."""

    def __init__(self) -> None:
        self._position = 0  # where the next header is; may lie ahead of what has come
        self._open: list[int] = []  # for each container that is open: how many objects it still lacks
        self._is_closed = False  # the last object has been seen; its bytes may still be on their way

    def scan(self, buffer: bytearray, limits: Limits) -> int | None:
        """Go on through `buffer` (the same as before, perhaps longer); the object's length, or None if it is not here.

        Raises ConversationError as soon as a header declares more than `limits` allow.
        """
        while not self._is_closed and self._position < len(buffer):
            header = self._header(buffer, limits)
            if header is None:
                break
            length, items = header
            self._position += length
            limits.check_frame_bytes(self._position)
            if items:
                self._open.append(items)
            else:
                self._is_closed = self._count_one()
        if self._is_closed and self._position <= len(buffer):
            return self._position
        limits.check_frame_bytes(len(buffer))
        return None

    def _header(self, buffer: bytearray, limits: Limits) -> tuple[int, int] | None:
        """(length of this object without its items, number of its items), or None if the header is incomplete."""
        first = buffer[self._position]
        if first in _FIXED:
            return _FIXED[first], 0
        if first in _EXTENSIONS:
            raise ConversationError("extension types are not part of this protocol")
        if first == 0xC1:
            raise ConversationError("not MessagePack: byte 0xc1")
        kind, size_bytes = _SIZED.get(first) or (_short_kind(first), 0)
        length = 1 + size_bytes
        digits = buffer[self._position + 1 : self._position + length]
        if len(digits) < size_bytes:
            return None
        size = int.from_bytes(digits, "big") if size_bytes else first & (0x1F if kind == "str" else 0x0F)
        if kind == "bin":
            return length + size, 0
        if kind == "str":
            if size > limits.max_string_bytes:
                raise ConversationError(f"string too long: {size} bytes, the limit is {limits.max_string_bytes}")
            return length + size, 0
        if size > limits.max_items:
            raise ConversationError(f"{kind} too large: {size} items, the limit is {limits.max_items}")
        if len(self._open) >= limits.max_nesting:
            raise ConversationError(f"nested too deeply: the limit is {limits.max_nesting} levels of arrays and maps")
        return length, size * 2 if kind == "map" else size

    def _count_one(self) -> bool:
        """Count one object; True when that finishes the outermost one."""
        while self._open:
            self._open[-1] -= 1
            if self._open[-1]:
                return False
            self._open.pop()
        return True


def _short_kind(first: int) -> str:
    """The kind of an object whose length is in its first byte: fixmap, fixarray or fixstr."""
    return "map" if first < 0x90 else "array" if first < 0xA0 else "str"
