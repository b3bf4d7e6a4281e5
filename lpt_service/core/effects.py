"""What a decision asks the server to do. Effects are carried out after the step that left them, in their order."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from lpt_service.core.jobs import Job
from lpt_service.core.requests import SessionState
from lpt_service.protocol.errors import RequestError
from lpt_service.protocol.messages import Notification


class Notice(Protocol):
    """State that a session is to hear of. It is rendered when it is sent, so that what is sent is the latest."""

    @property
    def key(self) -> tuple[object, ...]:
        """A later notice with an equal key takes the place of an earlier one that is not sent yet."""

    def render(self) -> Notification | None:
        """What to send now; None when it is stale."""


class Complete(NamedTuple):
    """Answer a request: with `error`, or with `output`.

    `end_seq`: it has disconnected one of several ISRs, which hears what came before that number.
    """

    session: SessionState
    msgid: int
    output: bytes
    error: RequestError | None = None
    end_seq: int | None = None


class Notify(NamedTuple):
    """Tell a session of a notice, after its replies."""

    session: SessionState
    notice: Notice


class EnterLog(NamedTuple):
    """From here on the session is sent the log, beginning at `entry`, after an `interrupt_sync` of these params."""

    session: SessionState
    entry: int
    reason: str
    next_seq: int
    lost: int | None


class LeaveLog(NamedTuple):
    """The session is sent the log up to `end`, then, if there is a `msgid`, the answer to it, and nothing after."""

    session: SessionState
    end: int
    msgid: int | None
    output: bytes


class StartJob(NamedTuple):
    """Call `FunctionDriver.advance_job` when `job.due_ns` has come, until it is done."""

    job: Job


class StopJob(NamedTuple):
    """The job has ended early: do not advance it any more."""

    job: Job


class Listen(NamedTuple):
    """Watch the port's descriptor, or stop watching it."""

    is_on: bool


class Published(NamedTuple):
    """The log has grown: send it to those who are behind."""


class WakeTimer(NamedTuple):
    """The earliest deadline is earlier than it was."""


class Granted(NamedTuple):
    """An ownership has begun."""

    session: SessionState
    grant: int
    at_ns: int


class Released(NamedTuple):
    """An ownership has ended, and why; once for each that has begun.

    Attributes:
        why: "freed", "session ended", "daemon stopping", or what the owner was told: "lease: …", "administrator: …",
            "port paused: …", "port removed: …"; or why it could not be kept for its client.
        written: how many bytes the owner put on the data lines.
        interrupts: how many were generated meanwhile.
    """

    session: SessionState
    grant: int
    since_ns: int
    until_ns: int
    why: str
    written: int
    interrupts: int


class PortGone(NamedTuple):
    """The port is being removed. Call `FunctionDriver.finish_removal` once its sessions have been told."""

    reason: str


Effect = (
    Complete
    | Notify
    | EnterLog
    | LeaveLog
    | StartJob
    | StopJob
    | Listen
    | Published
    | WakeTimer
    | Granted
    | Released
    | PortGone
)
