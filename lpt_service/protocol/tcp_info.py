"""What Linux tells about the peer of a TCP connection (tcp(7)), for both ends of one; without I/O."""

from __future__ import annotations

import struct
from typing import Final

# TCP_RTO_MAX_MS, of Linux 6.15 and newer, for which Python has no name: how often a kernel asks at least.
TCP_OPTION_RTO_CEILING: Final = 44

# Of struct tcp_info: retransmissions and probes without an answer; how many ms ago data, and an ACK, last came.
_TCP_INFO: Final = struct.Struct("2xBB48xII")
TCP_INFO_BYTES: Final = _TCP_INFO.size
_UNANSWERED_MIN: Final = 2  # one may have been lost on the way


def is_unreachable(tcp_info: bytes, dead_peer_s: float) -> bool:
    """Whether the peer's kernel was asked for a sign of life, and has given none for `dead_peer_s`.

    `tcp_info` is what the socket option TCP_INFO gives, its first `TCP_INFO_BYTES`. Whether the peer reads does not
    matter: it is its kernel that answers.
    """
    retransmits, probes, since_data_ms, since_ack_ms = _TCP_INFO.unpack(tcp_info)
    is_asked = max(retransmits, probes) >= _UNANSWERED_MIN
    return bool(is_asked and min(since_data_ms, since_ack_ms) >= dead_peer_s * 1000)
