"""A peer that cannot be reached, as the kernel tells of it."""

from __future__ import annotations

import sys

import pytest

from lpt_service.protocol.tcp_info import TCP_INFO_BYTES, is_unreachable

# struct tcp_info of linux/tcp.h, up to tcpi_last_ack_recv: 8 bytes of small fields, then u32.
RETRANSMITS, PROBES, SINCE_DATA_MS, SINCE_ACK_MS = 2, 3, 52, 56


def tcp_info(retransmits: int, probes: int, since_data_s: int, since_ack_s: int) -> bytes:
    """As the kernel gives it."""
    info = bytearray(b"\xff" * 60)
    info[RETRANSMITS], info[PROBES] = retransmits, probes
    for offset, seconds in ((SINCE_DATA_MS, since_data_s), (SINCE_ACK_MS, since_ack_s)):
        info[offset : offset + 4] = (seconds * 1000).to_bytes(4, sys.byteorder)
    return bytes(info[:TCP_INFO_BYTES])


@pytest.mark.parametrize(
    ("retransmits", "probes", "since_data_s", "since_ack_s", "is_gone"),
    [
        (0, 0, 99, 99, False),  # idle, and nothing asked
        (1, 0, 99, 99, False),  # asked once, which may have been lost
        (2, 0, 15, 15, True),
        (0, 2, 15, 15, True),
        (0, 5, 14, 99, False),
        (5, 0, 99, 14, False),
    ],
)
def test_a_peer_is_unreachable_after_two_questions_and_a_time_without_an_answer(
    retransmits: int, probes: int, since_data_s: int, since_ack_s: int, is_gone: bool
) -> None:
    assert is_unreachable(tcp_info(retransmits, probes, since_data_s, since_ack_s), 15) is is_gone
