"""The daemon's side of one conversation, from a script: bytes in → answers out. No I/O.

It answers as the contract says, with a port that is always free, unless a test sets another answer:

    daemon.answers["PULSE"] = None                                  no answer, for the test to give later
    daemon.answers["PULSE"] = RequestError(…)                       an error
    daemon.answers["PULSE"] = b"…" or lambda request: …             an output, or one of all these
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lpt_service.protocol import messages
from lpt_service.protocol.codec import (
    DAEMON_LIMITS,
    Decoder,
    encode_error,
    encode_interrupt,
    encode_notification,
    encode_result,
)
from lpt_service.protocol.errors import RequestError
from lpt_service.protocol.ioctl import Ioctl, IoctlClass
from lpt_service.protocol.messages import Notification, Request
from lpt_service.protocol.structs import PARALLEL_INTERRUPT_INFORMATION, PARALLEL_PORT_INFORMATION, PULSE_EDGES, U64

STREAM = 77
GRANT = 500
CONTEXT = 4711

Answer = bytes | RequestError | None
_CONTROL = {io_class.value for io_class in IoctlClass}
_PORT_INFO = PARALLEL_PORT_INFORMATION(
    0, 0, 3, Ioctl.TRY_ALLOCATE_PORT, Ioctl.FREE_PORT, Ioctl.QUERY_NUM_WAITERS, CONTEXT
).pack()


def connected(first_seq: int = 0) -> bytes:
    """The output of a connect."""
    return PARALLEL_INTERRUPT_INFORMATION(0, 0x16200C, 0x162010, CONTEXT).pack() + U64.pack(first_seq)


def name_of(message: Request | Notification) -> str:
    """What a request asks: the name of its control code, or its method."""
    if isinstance(message, Request) and message.method in _CONTROL:
        return Ioctl(message.params[0]).name
    return message.method


class FakeDaemon:
    """One session. `seen` lists everything that the client sent, `names` what it was.

    `resume` and `resumed` are what hello's answer says, where they are set.
    """

    def __init__(self, session: int = 1, stream: int = STREAM) -> None:
        self.session = session
        self.stream = stream
        self.resume: str | None = None
        self.resumed: dict[str, Any] | None = None
        self.seen: list[Request | Notification] = []
        self.names: list[str] = []
        self.answers: dict[str, Any] = {
            "hello": lambda _request: self.hello(),
            "ping": [123, 456],
            "status": {"port": "LPT1"},
            "revoke": {"revoked": None, "grant": None},
            "kick": {"kicked": 7},
            "pause": {"paused": True, "was": False},
            "resume": {"paused": False, "was": True},
            "queue": {"owner": None, "waiting": 0, "waiters": ()},
            "drain": {"idle": True, "ports": {}},
            "PARALLEL_PORT_ALLOCATE": U64.pack(GRANT),
            "PARALLEL_PORT_FREE": b"",
            "TRY_ALLOCATE_PORT": b"\x01" + bytes(7) + U64.pack(GRANT),
            "QUERY_NUM_WAITERS": b"\x02\0\0\0",
            "GET_PARALLEL_PORT_INFO": _PORT_INFO,
            "PARALLEL_CONNECT_INTERRUPT": connected(),
            "PARALLEL_DISCONNECT_INTERRUPT": U64.pack(0),
            "READ_PORT_UCHAR": lambda request: bytes([request.params[1][0] + 0x40]),
            "WRITE_PORT_UCHAR": U64.pack(99),
            "FROB_CONTROL": b"\x0c",
            "PULSE": PULSE_EDGES.pack(1000, 3000),
        }
        self._decoder = Decoder(DAEMON_LIMITS)

    def hello(self) -> dict[str, Any]:
        """The answer to hello."""
        kept = {"resume": self.resume, "resumed": self.resumed}
        return {name: value for name, value in kept.items() if value is not None} | {
            "protocol": 1,
            "server": "fake 1",
            "port": "LPT1",
            "session": self.session,
            "stream": self.stream,
            "clock": {"monotonic_ns": 1, "realtime_ns": 2},
            "limits": {},
            "features": [],
        }

    def receive(self, data: bytes) -> bytes:
        """Note what came; the answers to it."""
        self._decoder.receive(data)
        answers = b""
        while (message := self._decoder.next_message()) is not None:
            assert isinstance(message, (Request, Notification))
            self.seen.append(message)
            self.names.append(name_of(message))
            if isinstance(message, Request):
                answers += self._answer(message)
        return answers

    def _answer(self, request: Request) -> bytes:
        answer = self.answers[name_of(request)]
        if callable(answer):
            answer = answer(request)
        return b"" if answer is None else encode_answer(request, answer)

    def request(self, name: str) -> Request:
        """The last request of this name."""
        found = [each for each in self.seen if isinstance(each, Request) and name_of(each) == name]
        return found[-1]

    def answer(self, name: str, answer: Any) -> bytes:
        """The bytes that answer the last request of this name."""
        return encode_answer(self.request(name), answer)


def encode_answer(request: Request, answer: Any) -> bytes:
    """The bytes of an answer."""
    if isinstance(answer, RequestError):
        return encode_error(request.msgid, answer.status, answer.status_name, answer.detail)
    if request.method in _CONTROL and isinstance(answer, bytes):
        return encode_result(request.msgid, (len(answer), answer))
    return encode_result(request.msgid, answer)


def notice(method: str, *params: Any) -> bytes:
    """The bytes of a notification."""
    return encode_notification(method, params)


def interrupt(seq: int, count: int = 1, timestamp_ns: int = 1000) -> bytes:
    """The bytes of an interrupt."""
    return encode_interrupt(seq, timestamp_ns + seq, count, 0xC0, 0x1C, messages.KIND_EVENT)


def mark(kind: int, seq: int, timestamp_ns: int = 1000) -> bytes:
    """The bytes of a mark."""
    return encode_interrupt(seq, timestamp_ns, 0, 0xC0, 0x1C, kind)


def sync(reason: str, next_seq: int, lost: int | None = 0) -> bytes:
    """The bytes of an interrupt_sync."""
    return notice(messages.INTERRUPT_SYNC, reason, next_seq, lost)


MakeDaemon = Callable[[int], FakeDaemon]


def keeping(**resumed: Any) -> MakeDaemon:
    """Daemons that keep the session of the first connection: from the second on they tell what it still has.

    What is given as a function is asked then.
    """

    def make(number: int) -> FakeDaemon:
        daemon = FakeDaemon(session=1)
        daemon.resume = f"{number:032x}"
        if number > 1:
            daemon.resumed = {"grant": None, "position": None, "pending": [], "registrations": []}
            daemon.resumed |= {name: value() if callable(value) else value for name, value in resumed.items()}

            def hello(request: Request) -> dict[str, Any]:
                if "resume" not in request.params[0]:
                    daemon.resumed = None
                return daemon.hello()

            daemon.answers["hello"] = hello
        return daemon

    return make
