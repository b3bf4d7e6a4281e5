"""Hypothesis strategies: messages, their encodings, streams of them, and garbage."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from lpt_service.protocol.messages import Message, Notification, Request, Response
from tests.protocol.wire import frame_of, pack

INTEGERS = st.one_of(
    st.integers(-(1 << 63), (1 << 64) - 1),
    st.sampled_from([0, 31, 32, 127, 128, 255, 256, 65535, 65536, -1, -32, -33, -128, -129, (1 << 53) + 1]),
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    INTEGERS,
    st.floats(allow_nan=False),
    st.text(max_size=40),
    st.binary(max_size=40),
)


def values(levels: int) -> st.SearchStrategy[Any]:
    """Anything a frame may hold, at most `levels` containers deep."""
    if levels == 0:
        return SCALARS
    inner = values(levels - 1)
    return st.one_of(
        SCALARS,
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(st.one_of(st.text(max_size=8), INTEGERS), inner, max_size=3),
    )


MSGIDS = st.integers(0, 0xFFFF_FFFF)
METHODS = st.text(max_size=40)
PARAMS = values(3)
MESSAGES: st.SearchStrategy[Message] = st.one_of(
    st.builds(Request, MSGIDS, METHODS, PARAMS),
    st.builds(Response, MSGIDS, PARAMS, PARAMS),
    st.builds(Notification, METHODS, PARAMS),
)


@st.composite
def encodings(draw: st.DrawFn, message: Message) -> bytes:
    """A message's frame in any legal encoding; the method may be bin."""
    random = draw(st.randoms(use_true_random=False))
    frame = list(frame_of(message))
    if not isinstance(message, Response) and random.random() < 0.25:
        frame[-2] = message.method.encode()
    return pack(frame, random.choice)


@st.composite
def streams(draw: st.DrawFn) -> tuple[list[Message], bytes]:
    """Some messages and their frames, back to back."""
    messages = draw(st.lists(MESSAGES, max_size=4))
    return messages, b"".join(draw(encodings(message)) for message in messages)


@st.composite
def chunkings(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """Some way of cutting `data` into pieces."""
    if draw(st.booleans()):
        size = draw(st.integers(1, 5))
        return [data[i : i + size] for i in range(0, len(data), size)]
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=6)))
    return [data[i:j] for i, j in zip([0, *cuts], [*cuts, len(data)], strict=True)]


# Pieces that make plausible frames, and implausible ones.
_TOKENS = st.sampled_from(
    [
        *(pack(value) for value in (0, 1, 2, 3, -1, True, None, "", "ping", b"ping", (), {}, {"a": ()}, 1 << 64 - 1)),
        *(b"\x91", b"\x93", b"\x94", b"\x81", b"\xdc\x00\x04", b"\xdd\x00\x00\x00\x03", b"\xde\x00\x01"),
        *(b"\xdc\xff\xff", b"\xdd\xff\xff\xff\xff", b"\xdf\x00\x00\x00\x41", b"\xdb\x00\x00\x04\x01"),
        *(b"\xc6\xff\xff\xff\xff", b"\xc6\x00\x00\x01\x00", b"\xc5\x00\x01", b"\xa3\xff\xfe\xfd", b"\xa1\xff"),
        *(b"\xc1", b"\xc7\x00\x01", b"\xd4\x01\x00", b"\xd6\xff\x00\x00\x00\x00", b"\xc9\xff\xff\xff\xff\x00"),
        *(b"\x94\x00\x01\xa4ping", b"\x93\x02\xa4ping", b"\x94\x01\x01\xc0", b"\x81\x80\x00", b"\x81\x90\x00"),
    ]
)
GARBAGE = st.one_of(
    st.binary(max_size=60),
    st.lists(_TOKENS, max_size=14).map(b"".join),
    st.lists(_TOKENS, max_size=8).map(lambda tokens: b"\x94\x00\x01\xa1m" + b"".join(tokens)),
)
