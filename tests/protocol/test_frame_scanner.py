"""Finding the end of a frame that arrives in pieces."""

from typing import Any, SupportsIndex

import pytest
from hypothesis import given

from lpt_service.protocol.errors import ConversationError
from lpt_service.protocol.frame_scanner import FrameScanner, Limits
from tests.protocol.strategies import values
from tests.protocol.wire import longest, pack

LIMITS = Limits()


@given(values(4))
def test_the_end_is_found_when_it_has_come_and_not_before(value: Any) -> None:
    for data in (pack(value), pack(value, longest)):
        scanner, buffer = FrameScanner(), bytearray()
        for byte in data[:-1]:
            buffer.append(byte)
            assert scanner.scan(buffer, LIMITS) is None
        buffer += data[-1:] + b"\x00the next one"
        assert scanner.scan(buffer, LIMITS) == len(data)
        assert FrameScanner().scan(bytearray(data + b"\xc1"), LIMITS) == len(data)


@pytest.mark.parametrize("first", [*range(0xC1), *range(0xC2, 0xC7), *range(0xCA, 0xD4), *range(0xD9, 0x100)])
def test_every_first_byte_has_its_length(first: int) -> None:
    """An independent reading of the specification's table, with sizes 0 and contents left out."""
    if first < 0x80 or first >= 0xE0 or first in (0xC0, 0xC2, 0xC3):
        length = 1  # integers, nil, false, true
    elif first < 0x90:
        length = 1 + 2 * (first & 0x0F)  # fixmap of nils
    elif first < 0xA0:
        length = 1 + (first & 0x0F)  # fixarray
    elif first < 0xC0:
        length = 1 + (first & 0x1F)  # fixstr
    else:
        numbers = {0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8}
        sizes = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4, 0xDC: 2, 0xDD: 4, 0xDE: 2, 0xDF: 4}
        length = 1 + (numbers | sizes)[first]
    filler = b"\xc0" if 0x80 <= first < 0xA0 else b"\x00"
    data = bytes([first]) + filler * (length - 1)
    assert FrameScanner().scan(bytearray(data), LIMITS) == length
    assert FrameScanner().scan(bytearray(data[:-1]), LIMITS) is None


@pytest.mark.parametrize("first", [0xC1, *range(0xC7, 0xCA), *range(0xD4, 0xD9)])
def test_the_other_first_bytes_are_refused(first: int) -> None:
    with pytest.raises(ConversationError, match=r"byte 0xc1|extension types"):
        FrameScanner().scan(bytearray([first]), LIMITS)


class CountingBuffer(bytearray):
    """Counts how often it is looked into."""

    looks = 0

    def __getitem__(self, index: SupportsIndex | slice) -> Any:
        self.looks += 1
        return super().__getitem__(index)


def test_slow_bytes_cost_no_more_looks_than_there_are_bytes() -> None:
    """Otherwise a client that sends byte by byte makes the daemon read a frame from its start 65,536 times."""
    blocks = pack((0, 1, "m", tuple((i, bytes(900)) for i in range(60))))
    scanner, buffer = FrameScanner(), CountingBuffer()
    for byte in blocks[:-1]:
        buffer.append(byte)
        assert scanner.scan(buffer, LIMITS) is None
    assert buffer.looks < 2000  # 186 headers of at most 3 bytes, each byte of a header looked at once or twice
    buffer += blocks[-1:]
    assert scanner.scan(buffer, LIMITS) == len(blocks)
