"""Frames ⇄ messages. The only module that imports msgpack, and the place of every limit on what is received.

A `Decoder` is fed bytes as they arrive and gives messages one by one; it is sans-I/O. Frames follow each other with no
other framing, so their ends are found by reading them. Two ways lead there:

* A chunk that begins with a whole frame is handed to msgpack's C decoder at once (the hot path), from msgpack 1.2 on.
* A frame of which only a part is here is followed by `FrameScanner`, header by header. It refuses what is declared too
  large or nested too deeply before the bytes (or the memory) for it come, and costs the same however the bytes arrive.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import msgpack

from lpt_service.protocol.errors import ConversationError
from lpt_service.protocol.frame_scanner import FrameScanner, Limits
from lpt_service.protocol.messages import (
    NOTIFICATION,
    REQUEST,
    RESPONSE,
    Message,
    Notification,
    Raw,
    Request,
    Response,
)

U32_MAX: Final = 0xFFFFFFFF


DAEMON_LIMITS: Final = Limits()
# Before hello nobody is known yet; the largest sensible hello is a tenth of this.
BEFORE_HELLO_LIMITS: Final = Limits(max_frame_bytes=4 * 1024)
# The daemon's own frames stay under 1 MiB; a client takes just that.
CLIENT_LIMITS: Final = Limits(max_frame_bytes=1024 * 1024, max_items=4096, max_string_bytes=64 * 1024, max_nesting=16)

_NEED_DATA: Final = object()

# What msgpack raises on bytes that it cannot take: its own tree, ValueError (FormatError, StackError, limits, UTF-8),
# TypeError (a map as a map's key), OverflowError, and RecursionError in its pure-Python form.
DECODE_ERRORS: Final = (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException)


def is_accelerated() -> bool:
    """True when msgpack's C extension is in use (its pure-Python fallback is 20 to 35 times slower)."""
    return msgpack.Packer.__module__ == "msgpack._cmsgpack"


def msgpack_version() -> tuple[int, ...]:
    """The version of msgpack in use, for example (1, 2, 4)."""
    return tuple(int(part) for part in msgpack.version[:3])


# One packer for all costs half of what packb does, which takes 256 KiB for each call. Threads may share the C form,
# which keeps the interpreter to itself while it packs; in the Python form they would mix their frames.
_pack: Final[Callable[[object], bytes]] = msgpack.Packer().pack if is_accelerated() else msgpack.packb
_pack_without_bin: Final[Callable[[object], bytes]] = (
    msgpack.Packer(use_bin_type=False).pack if is_accelerated() else partial(msgpack.packb, use_bin_type=False)
)
# Before 1.2 msgpack never frees what it had decoded of an incomplete frame. Clients may have such a one.
_LEAKS_INCOMPLETE: Final = msgpack_version() < (1, 2)


def encode_request(msgid: int, method: str, params: tuple[Any, ...]) -> bytes:
    r"""`[0, msgid, method, params]`.

    Bytes that are not UTF-8, in a name or a text that the system gave, go as the letters of their numbers: `\udce9`.
    """
    try:
        return _pack((REQUEST, msgid, method, params))
    except UnicodeEncodeError:
        return msgpack.packb((REQUEST, msgid, method, params), unicode_errors="backslashreplace")


def encode_result(msgid: int, result: Any) -> bytes:
    """`[1, msgid, nil, result]`."""
    return _pack((RESPONSE, msgid, None, result))


def encode_error(msgid: int, status: int, name: str, detail: str) -> bytes:
    """`[1, msgid, [status, name, detail], nil]`."""
    return _pack((RESPONSE, msgid, (status, name, detail), None))


def encode_notification(method: str, params: tuple[Any, ...]) -> bytes:
    """`[2, method, params]`."""
    return _pack((NOTIFICATION, method, params))


_INTERRUPT_HEAD: Final = b"\x93\x02\xa9interrupt\x96\xcf"
_INTERRUPT: Final = struct.Struct(">14sQBQBIBBBBBB")
INTERRUPT_FRAME_BYTES: Final = _INTERRUPT.size
INTERRUPT_COUNT_MAX: Final = U32_MAX


def encode_interrupt(seq: int, timestamp_ns: int, count: int, status: int, control: int, kind: int) -> bytes:
    """The `interrupt` notification: always 42 bytes, so that the event log is a ring of equal entries."""
    return _INTERRUPT.pack(
        _INTERRUPT_HEAD, seq, 0xCF, timestamp_ns, 0xCE, count, 0xCC, status, 0xCC, control, 0xCC, kind
    )


def without_bin(frames: bytes) -> bytes:
    """The same frames for a client that has neither bin nor str8, but raw; an `interrupt` has neither, and stays."""
    unpacker = msgpack.Unpacker(use_list=False, strict_map_key=False, max_buffer_size=len(frames))
    unpacker.feed(frames)
    found = []
    begin = 0
    for message in unpacker:
        end = unpacker.tell()
        is_interrupt = frames.startswith(_INTERRUPT_HEAD, begin)
        found.append(frames[begin:end] if is_interrupt else _pack_without_bin(message))
        begin = end
    return b"".join(found)


class Decoder:
    """Turns a byte stream into messages, within limits.

    Feed it with `receive`, then call `next_message` until it returns None. `limits` may be replaced between two calls
    (a larger frame is allowed after hello, also for a frame that is here already).

    Error handling: `next_message` raises ConversationError and nothing else. From then on it raises the same again: a
    parser that has failed is never used again.
    """

    def __init__(self, limits: Limits = DAEMON_LIMITS) -> None:
        self.limits = limits
        self._chunk = b""  # received and not yet decoded, from `_offset` on
        self._offset = 0
        self._unpacker: Any = None  # walks a chunk of several frames
        self._partial = bytearray()  # a frame whose end has not come, and
        self._scanner: FrameScanner | None = None  # how far it has been followed
        self._failure: str | None = None

    @property
    def is_mid_frame(self) -> bool:
        """True while a frame has begun and not ended; meaningful once `next_message` has returned None."""
        return self._scanner is not None

    def receive(self, data: bytes) -> None:
        """Take bytes from the stream; `next_message` must have returned None since the last call."""
        if self._scanner is not None:
            self._partial += data
        else:
            self._chunk, self._offset = data, 0

    def next_message(self) -> Message | None:
        """The next message, or None when more bytes are needed."""
        if self._failure is not None:
            raise ConversationError(self._failure)
        if not self._chunk and self._scanner is None:
            return None
        try:
            frame = self._next_frame()
            return None if frame is _NEED_DATA else _message_of(frame, self.limits.max_nesting)
        except DECODE_ERRORS as exc:
            self._fail(f"not MessagePack: {str(exc) or type(exc).__name__}")
            raise ConversationError(self._failure) from exc
        except ConversationError as exc:
            self._fail(str(exc))
            raise

    def _fail(self, text: str) -> None:
        """Remember why, as text: the exception itself would keep what was received alive."""
        self._failure = text
        self._chunk, self._unpacker, self._scanner, self._partial = b"", None, None, bytearray()

    def _next_frame(self) -> Any:
        if self._scanner is not None:
            return self._finish_partial(self._scanner)
        if self._unpacker is None:
            chunk = self._chunk
            if not chunk:
                return _NEED_DATA
            if _LEAKS_INCOMPLETE:
                return self._begin_partial(chunk)
            try:
                frame = _unpack(chunk, self.limits)
            except msgpack.ExtraData:
                self._unpacker = _open_unpacker(chunk, self.limits)
            except DECODE_ERRORS:
                return self._begin_partial(chunk)
            else:
                self._chunk = b""
                self.limits.check_frame_bytes(len(chunk))
                return frame
        try:
            frame = self._unpacker.unpack()
        except DECODE_ERRORS:
            return self._begin_partial(self._chunk[self._offset :])
        end = self._unpacker.tell()
        self.limits.check_frame_bytes(end - self._offset)
        self._offset = end
        return frame

    def _begin_partial(self, rest: bytes) -> Any:
        """`rest` is an incomplete frame, or a wrong one, or nothing: the scanner tells which, and says it well."""
        self._chunk, self._unpacker = b"", None
        if not rest:
            return _NEED_DATA
        self._partial = bytearray(rest)
        self._scanner = FrameScanner()
        return self._finish_partial(self._scanner)

    def _finish_partial(self, scanner: FrameScanner) -> Any:
        end = scanner.scan(self._partial, self.limits)
        if end is None:
            return _NEED_DATA
        frame, rest = bytes(self._partial[:end]), bytes(self._partial[end:])
        self._chunk, self._offset = rest, 0
        self._scanner, self._partial = None, bytearray()
        try:
            return _unpack(frame, self.limits)
        except UnicodeDecodeError:
            escaped = _unpack_raw(frame, self.limits)
            if escaped is None:
                raise
            return escaped


# The limits as msgpack has them (a bin is bounded by the frame, the nesting is checked below). They are written out
# twice, because keywords given by `**` take as long again as the decoding.


def _unpack(frame: bytes, limits: Limits) -> Any:
    return msgpack.unpackb(
        frame,
        use_list=False,
        strict_map_key=False,
        object_pairs_hook=_map_of,
        max_array_len=limits.max_items,
        max_map_len=limits.max_items,
        max_str_len=limits.max_string_bytes,
        max_ext_len=0,
        ext_hook=_refuse_extension,
    )


def _unpack_raw(frame: bytes, limits: Limits) -> Any:
    """A request from a client without bin, its `input`, which is not UTF-8, as a `Raw`; None for any other frame."""
    found = _open_unpacker(frame, limits, unicode_errors="surrogateescape").unpack()
    if type(found) is not tuple or len(found) != 4 or found[0] != REQUEST:
        return None
    *others, params = found
    if type(params) is not tuple or len(params) < 2 or type(params[1]) is not str:
        return None
    code, input_, *rest = params
    try:
        _pack((others, code, rest))
    except UnicodeEncodeError:  # more than the input has bytes that are no text
        return None
    return (*others, (code, Raw(input_.encode("utf-8", "surrogateescape")), *rest))


def _open_unpacker(chunk: bytes, limits: Limits, unicode_errors: str | None = None) -> Any:
    unpacker = msgpack.Unpacker(
        max_buffer_size=len(chunk),
        unicode_errors=unicode_errors,
        use_list=False,
        strict_map_key=False,
        object_pairs_hook=_map_of,
        max_array_len=limits.max_items,
        max_map_len=limits.max_items,
        max_str_len=limits.max_string_bytes,
        max_ext_len=0,
        ext_hook=_refuse_extension,
    )
    unpacker.feed(chunk)
    return unpacker


def _map_of(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    """A map. One that has a key twice would hide a value from the checks that follow."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a map has a key twice")
    return found


def _refuse_extension(code: int, data: bytes) -> Any:
    raise ValueError("extension types are not part of this protocol")


# Named tuples as their own constructors make them, without the detour through Python.
_new_request: Final[Callable[[tuple[Any, ...]], Request]] = partial(tuple.__new__, Request)
_new_response: Final[Callable[[tuple[Any, ...]], Response]] = partial(tuple.__new__, Response)
_new_notification: Final[Callable[[tuple[Any, ...]], Notification]] = partial(tuple.__new__, Notification)


def _message_of(frame: Any, max_nesting: int) -> Message:
    """Check the shape of a frame and name its parts."""
    if type(frame) is not tuple or not frame or type(frame[0]) is not int:
        raise ConversationError("not a frame: a message is an array that begins with 0, 1 or 2")
    kind = frame[0]
    if len(frame) == 4 and kind in (REQUEST, RESPONSE):
        _, msgid, second, third = frame
        if type(msgid) is not int or not 0 <= msgid <= U32_MAX:
            raise ConversationError(f"not a frame: msgid is a u32, got {msgid!r:.40}")
        _check_nesting(third, 2, max_nesting)
        if kind == REQUEST:
            return _new_request((msgid, second if type(second) is str else _method_of(second), third))
        if second is not None:
            _check_nesting(second, 2, max_nesting)
        return _new_response((msgid, second, third))
    if len(frame) == 3 and kind == NOTIFICATION:
        _, method, params = frame
        _check_nesting(params, 2, max_nesting)
        return _new_notification((method if type(method) is str else _method_of(method), params))
    raise ConversationError(
        "not a frame: [0, msgid, method, params], [1, msgid, error, result] or [2, method, params] expected, "
        f"got {len(frame)} items beginning with {kind}"
    )


def _method_of(value: Any) -> str:
    if type(value) is str:
        return value
    if type(value) is bytes:
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise ConversationError("not a frame: method is not UTF-8") from None
    raise ConversationError(f"not a frame: method is text, got {type(value).__name__}")


def _check_nesting(value: Any, level: int, max_nesting: int) -> None:
    """Raise if `value`, itself at `level` (the frame is level 1), or anything in it is a container too deep."""
    kind = type(value)
    if kind is tuple or kind is dict:
        if level > max_nesting:
            raise ConversationError(f"nested too deeply: the limit is {max_nesting} levels of arrays and maps")
        for item in value if kind is tuple else (*value, *value.values()):
            kind = type(item)
            if kind is tuple or kind is dict:
                _check_nesting(item, level + 1, max_nesting)
