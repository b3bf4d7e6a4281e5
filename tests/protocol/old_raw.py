"""MessagePack as it was before 2013, for tests: one type, raw, for text and bytes; no bin, no str8, no extensions.

So speak the MessagePack-RPC of nvim 0.7, msgpack-rpc-python 0.4.1, and libraries for PHP and Lua.
"""

from __future__ import annotations

import struct
from typing import Any, Final

import msgpack

_NUMBERS: Final = {
    **{0xCA: ">f", 0xCB: ">d"},
    **{0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q", 0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q"},
}
_CONSTANTS: Final = {0xC0: None, 0xC2: False, 0xC3: True}
_SIZES: Final = {0xDA: ">H", 0xDB: ">I", 0xDC: ">H", 0xDD: ">I", 0xDE: ">H", 0xDF: ">I"}


def encode(*messages: Any) -> bytes:
    """Messages as such a client sends them."""
    return b"".join(msgpack.packb(message, use_bin_type=False) for message in messages)


class OldDecoder:
    """What such a client makes of what it receives: text and bytes are both bytes. It knows no type that is newer."""

    def __init__(self) -> None:
        self._data = b""

    def feed(self, data: bytes) -> list[Any]:
        """The messages that are whole by now, with their own bytes."""
        self._data += data
        found = []
        while self._data:
            try:
                message, rest = _value(self._data)
            except (IndexError, struct.error):
                break
            found.append(message)
            self._data = rest
        return found


def _take(data: bytes, size: int) -> tuple[bytes, bytes]:
    if len(data) < size:
        raise IndexError("more is to come")
    return data[:size], data[size:]


def _number(data: bytes, form: str) -> tuple[Any, bytes]:
    digits, rest = _take(data, struct.calcsize(form))
    return struct.unpack(form, digits)[0], rest


def _value(data: bytes) -> tuple[Any, bytes]:
    first, data = data[0], data[1:]
    if first < 0x80 or first >= 0xE0:
        return (first if first < 0x80 else first - 0x100), data
    if first in _CONSTANTS:
        return _CONSTANTS[first], data
    if first in _NUMBERS:
        return _number(data, _NUMBERS[first])
    if first in _SIZES:
        size, data = _number(data, _SIZES[first])
    elif first < 0xC0:
        size = first & (0x1F if first >= 0xA0 else 0x0F)
    else:
        raise AssertionError(f"a type that was not there before 2013: {first:#x}")
    if 0xA0 <= first < 0xC0 or first in (0xDA, 0xDB):
        return _take(data, size)
    items = []
    for _ in range(size * 2 if first < 0x90 or first in (0xDE, 0xDF) else size):
        item, data = _value(data)
        items.append(item)
    if first < 0x90 or first in (0xDE, 0xDF):
        return dict(zip(items[::2], items[1::2], strict=True)), data
    return items, data
