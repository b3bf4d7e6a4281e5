"""A client of the contract's text alone: a socket, a MessagePack library, and the numbers of docs/protocol.md.

It knows nothing of `lpt_service` or `lpt_client`, so that it checks what they have in common. It is blocking, and keeps
everything that it receives in the order of arrival.
"""

from __future__ import annotations

import itertools
import socket
import struct
from typing import Any

import msgpack

INTERNAL = "internal_device_control"
DEVICE = "device_control"

# Control codes.
ALLOCATE = 0x16002C
FREE = 0x1600A0
GET_PORT_INFO = 0x160030
RELEASE_PORT_INFO = 0x16003C
GET_MORE_PORT_INFO = 0x160044
GET_PNP_INFO = 0x160054
CONNECT_INTERRUPT = 0x160034
DISCONNECT_INTERRUPT = 0x160038
TRY_ALLOCATE_PORT = 0x162000
FREE_PORT = 0x162004
QUERY_NUM_WAITERS = 0x162008
TRY_ALLOCATE_AT_INTERRUPT_LEVEL = 0x16200C
FREE_FROM_INTERRUPT_LEVEL = 0x162010
READ_PORT_UCHAR = 0x162040
WRITE_PORT_UCHAR = 0x162044
FROB_CONTROL = 0x162048
PULSE = 0x16204C

# Statuses that are errors.
STATUSES = {
    "STATUS_UNSUCCESSFUL": 0xC0000001,
    "STATUS_INVALID_PARAMETER": 0xC000000D,
    "STATUS_NO_SUCH_DEVICE": 0xC000000E,
    "STATUS_ACCESS_DENIED": 0xC0000022,
    "STATUS_BUFFER_TOO_SMALL": 0xC0000023,
    "STATUS_DELETE_PENDING": 0xC0000056,
    "STATUS_INSUFFICIENT_RESOURCES": 0xC000009A,
    "STATUS_DEVICE_NOT_CONNECTED": 0xC000009D,
    "STATUS_IO_TIMEOUT": 0xC00000B5,
    "STATUS_NOT_SUPPORTED": 0xC00000BB,
    "STATUS_CANCELLED": 0xC0000120,
    "STATUS_INVALID_DEVICE_STATE": 0xC0000184,
    "STATUS_IO_DEVICE_ERROR": 0xC0000185,
}

EVENT, UNHEARD, MASKED, UNMASKED, STOPPED = range(5)
DATA, STATUS, CONTROL = b"\x00", b"\x01", b"\x02"
INTERRUPT_ENABLE = 0x10

Address = tuple[str, int] | str
TIMEOUT_S = 40  # against hanging alone


class RefusedError(Exception):
    """A request ended with an error; `name` is that of its status."""

    def __init__(self, status: int, name: str, detail: str) -> None:
        super().__init__(f"{name}: {detail}")
        assert STATUSES[name] == status
        self.name = name
        self.detail = detail


class RawClient:
    """One connection.

    Attributes:
        unread: what has come and was not asked for yet, in order.
        welcome: what hello answered.
    """

    def __init__(self, address: Address) -> None:
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        self.socket.settimeout(TIMEOUT_S)
        try:
            self.socket.connect(address)
        except OSError:
            self.socket.close()
            raise
        if family == socket.AF_INET:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.unread: list[Any] = []
        self.welcome: dict[str, Any] = {}
        self._unpacker = msgpack.Unpacker(max_array_len=1 << 16, max_map_len=1 << 16)
        self._msgids = itertools.count(1)
        self._handle = b""

    # Sending

    def send(self, *messages: Any) -> None:
        """Send whole messages in one piece."""
        self.socket.sendall(b"".join(map(msgpack.packb, messages)))

    def request(self, method: str, *params: Any) -> int:
        """Send a request; its msgid."""
        msgid = next(self._msgids)
        self.send([0, msgid, method, params])
        return msgid

    def control(
        self, code: int, input_: Any = b"", output_length: int = 0, *, method: str = INTERNAL, **options: Any
    ) -> int:
        """Send a control request; its msgid. The option `from` is spelt `from_`."""
        spelt = {name.rstrip("_"): value for name, value in options.items()}
        return self.request(method, code, input_, output_length, *([spelt] if spelt else []))

    def cancel(self, msgid: int) -> None:
        self.send([2, "cancel", [msgid]])

    # Receiving

    def receive(self) -> Any:
        """The next message from the socket. Raises EOFError at the end."""
        while True:
            try:
                return self._unpacker.unpack()
            except msgpack.OutOfData:
                data = self.socket.recv(1 << 16)
                if not data:
                    raise EOFError from None
                self._unpacker.feed(data)

    def reply(self, msgid: int) -> Any:
        """The result of a request; what comes before it is kept. Raises RefusedError."""
        _, _, error, result = self._next(lambda message: message[:2] == [1, msgid])
        if error is not None:
            assert result is None
            raise RefusedError(*error)
        return result

    def notification(self, name: str) -> Any:
        """The params of the next notification of a name; what comes before it is kept."""
        return self._next(lambda message: message[:2] == [2, name])[2]

    def _next(self, is_wanted: Any) -> Any:
        for place, message in enumerate(self.unread):
            if is_wanted(message):
                return self.unread.pop(place)
        while True:
            message = self.receive()
            if is_wanted(message):
                return message
            self.unread.append(message)

    def heard(self) -> list[Any]:
        """Everything that has come and was not asked for, up to the answer of a ping that is sent now."""
        self.call("ping")
        heard, self.unread = self.unread, []
        return heard

    def rest(self) -> list[Any]:
        """Everything up to the end of the stream."""
        messages, self.unread = self.unread, []
        try:
            while True:
                messages.append(self.receive())
        except EOFError:
            return messages

    # Calls

    def call(self, method: str, *params: Any) -> Any:
        """A request and its result. Raises RefusedError."""
        return self.reply(self.request(method, *params))

    def hello(self, **keys: Any) -> RawClient:
        """Say hello; returns the client itself."""
        self.welcome = self.call("hello", {"protocol": 1, **keys})
        return self

    def ioctl(self, code: int, input_: bytes = b"", output_length: int = 0, **options: Any) -> bytes:
        """A control request and its output. Raises RefusedError."""
        return self.output(self.control(code, input_, output_length, **options))

    def output(self, msgid: int) -> bytes:
        """The output of a control request that was sent. Raises RefusedError."""
        information, output = self.reply(msgid)
        assert information == len(output)
        assert type(output) is bytes
        return output

    def refusal(self, msgid: int) -> str:
        """The name of the status with which a request ended."""
        try:
            result = self.reply(msgid)
        except RefusedError as refused:
            return refused.name
        raise AssertionError(f"granted: {result}")

    def refused(self, code: int, input_: Any = b"", output_length: int = 0, **options: Any) -> str:
        """The name of the status with which a control request ends."""
        return self.refusal(self.control(code, input_, output_length, **options))

    @property
    def handle(self) -> bytes:
        """What this session passes to callbacks."""
        if not self._handle:
            self._handle = self.ioctl(GET_PORT_INFO, b"", 56)[48:56]
        return self._handle

    def allocate(self, **options: Any) -> int:
        """Allocate the port; the grant."""
        return u64(self.ioctl(ALLOCATE, b"", 8, **options))

    def read(self, register: bytes) -> int:
        return self.ioctl(READ_PORT_UCHAR, register, 1)[0]

    def write(self, register: bytes, value: int) -> None:
        self.ioctl(WRITE_PORT_UCHAR, register + bytes((value,)))

    def connect_interrupt(self, isr: int = 1, deferred: int = 0, **options: Any) -> int:
        """Connect a routine; its first_seq."""
        return u64(self.ioctl(CONNECT_INTERRUPT, routine(isr, deferred), 40, **options)[32:])

    def disconnect_interrupt(self, isr: int = 1, deferred: int = 0) -> int:
        """Disconnect a routine; its end_seq."""
        return u64(self.ioctl(DISCONNECT_INTERRUPT, routine(isr, deferred), 8))

    def raise_interrupts(self, count: int = 1) -> None:
        """As the owner, with the loop-back plug in: D3 is joined to nAck, and its rising edge interrupts.

        The daemon may not have taken the last ones when this returns.
        """
        levels = b"\x00" + b"\x08\x00" * count
        writes = {next(self._msgids): [WRITE_PORT_UCHAR, DATA + bytes((level,)), 0] for level in levels}
        self.send(*([0, msgid, INTERNAL, params] for msgid, params in writes.items()))
        for msgid in writes:
            self.output(msgid)

    # The end

    def close(self) -> None:
        self.socket.close()

    def reset(self) -> None:
        """Close in a way that the other end sees as an error."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


def check_closing(client: RawClient, *, answered: list[int]) -> str:
    """The rest of a conversation that was ended: answers, one `closing`, the end of the stream."""
    messages = client.rest()
    assert [message[1] for message in messages if message[0] == 1] == answered
    assert [message[1] for message in messages].count("closing") == 1
    assert messages[-1][:2] == [2, "closing"]
    (reason,) = messages[-1][2]
    assert type(reason) is str
    return reason


def u64(output: bytes) -> int:
    assert len(output) == 8
    return int.from_bytes(output, "little")


def routine(isr: int = 1, deferred: int = 0, context: int = 0, deferred_context: int = 0) -> bytes:
    """A PARALLEL_INTERRUPT_SERVICE_ROUTINE."""
    return struct.pack("<QQQQ", isr, context, deferred, deferred_context)


def pulse(value: int, after: int, width_us: int) -> bytes:
    """The input of PULSE."""
    return struct.pack("<BBI", value, after, width_us)


def interrupts(messages: list[Any]) -> list[Any]:
    """The params of the `interrupt` notifications among messages."""
    return [message[2] for message in messages if message[:2] == [2, "interrupt"]]


class Account:
    """What a listener was told of the log: checks that nothing is missing without a word."""

    def __init__(self) -> None:
        self.received = self.lost = self.overruns = 0
        self.kinds: list[int] = []
        self._next_seq: int | None = None

    def add(self, messages: list[Any]) -> Account:
        """Count what is of the log among messages; returns the account itself."""
        for message in messages:
            if message[:2] == [2, "interrupt_sync"]:
                reason, self._next_seq, lost = message[2]
                self.lost += lost
                self.overruns += reason == "overrun"
            elif message[:2] == [2, "interrupt"]:
                seq, _, count, _, _, kind = message[2]
                assert seq == self._next_seq, "a gap that was not told of"
                assert (count == 0) == (kind != EVENT)
                self._next_seq = seq + count
                self.received += count
                self.kinds.append(kind)
        return self
