"""Sessions across an orderly restart: a file that only the daemon can read, written at the stop, used up at the start.

After a crash there is none: what it would say is not known to be true.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lpt_service.core.requests import SessionState
from lpt_service.core.survival import Kept, KeptRequest, holdings
from lpt_service.protocol.structs import PARALLEL_INTERRUPT_SERVICE_ROUTINE
from lpt_service.server.identity import Identity
from lpt_service.server.port_worker import PortWorker
from lpt_service.server.tickets import Ticket

FILE_NAME: Final = "sessions.json"
_MODE: Final = 0o600
# Neither another file that a link leads to, nor a pipe to wait at, in a folder that others may write to.
_NO_TRAP: Final = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_DIGEST: Final = "^[0-9a-f]{64}$"
_STRUCTURE: Final = f"^[0-9a-f]{{{2 * PARALLEL_INTERRUPT_SERVICE_ROUTINE.SIZE}}}$"
_log = logging.getLogger(__name__)


_Number = Annotated[int, Field(ge=1, lt=1 << 52)]
_U32 = Annotated[int, Field(ge=0, lt=1 << 32)]


class _Saved(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class SavedSession(_Saved):
    """One session. `digest` is the hash of the secret by which its client comes back."""

    session: _Number
    context: Annotated[int, Field(ge=1, lt=1 << 64)]
    client: str
    peer: str
    host: str
    digest: Annotated[str, Field(pattern=_DIGEST)]
    uid: int | None
    certificate: str | None
    token: str | None


class SavedOwner(_Saved):
    """Who owns the port, with the grant in force."""

    session: int
    grant: Annotated[int, Field(ge=1, lt=1 << 53)]


class SavedAllocate(_Saved):
    """A place in the queue, with what is left of its time-out."""

    session: int
    msgid: _U32
    output_length: _U32
    timeout_ms: _U32 | None = None


class SavedRegistration(_Saved):
    """A connected structure, in hexadecimal digits."""

    session: int
    structure: Annotated[str, Field(pattern=_STRUCTURE)]


class SavedPort(_Saved):
    """What sessions hold of a port; each list in order."""

    sessions: list[SavedSession]
    owner: SavedOwner | None
    waiters: list[SavedAllocate]
    registrations: list[SavedRegistration]
    is_check_owed: bool = False

    @model_validator(mode="after")
    def _check_sessions(self) -> SavedPort:
        there = {each.session for each in self.sessions}
        queue = [each.session for each in self.waiters]
        if self.owner is not None:
            queue.append(self.owner.session)
        connected = [(each.session, each.structure) for each in self.registrations]
        if not {*queue, *(session for session, _ in connected)} <= there:
            raise ValueError("a session holds something, and is not there")
        if len(set(queue)) < len(queue) or len(set(connected)) < len(connected):
            raise ValueError("a session holds something twice")
        return self


class SavedPorts(_Saved):
    """The whole file."""

    version: Literal[1] = 1
    ports: dict[str, SavedPort]

    @model_validator(mode="after")
    def _check_numbers(self) -> SavedPorts:
        sessions = [each for port in self.ports.values() for each in port.sessions]
        numbers, digests = {each.session for each in sessions}, {each.digest for each in sessions}
        if min(len(numbers), len(digests)) < len(sessions):
            raise ValueError("a session is there twice")
        return self


def describe(worker: PortWorker) -> SavedPort:
    """What those sessions of a port hold that may come back."""
    kept = holdings(worker.driver, worker.parking.spared, worker.clock.monotonic_ns())
    sessions: list[SavedSession] = []
    for state in worker.parking.spared:
        ticket = worker.parking.tickets.find(state)
        if ticket is not None:
            who = ticket.identity
            sessions.append(
                SavedSession(
                    session=state.session,
                    context=state.context,
                    client=state.client,
                    peer=state.peer,
                    host=ticket.host,
                    digest=ticket.digest,
                    uid=who.uid,
                    certificate=who.certificate,
                    token=who.token,
                )
            )
    return SavedPort(
        sessions=sessions,
        owner=kept.owner and SavedOwner(session=kept.owner[0].session, grant=kept.owner[1]),
        waiters=[
            SavedAllocate(session=state.session, msgid=msgid, output_length=output_length, timeout_ms=timeout_ms)
            for state, msgid, output_length, timeout_ms in kept.waiters
        ],
        registrations=[
            SavedRegistration(session=state.session, structure=key.hex()) for state, key in kept.registrations
        ],
        is_check_owed=kept.is_check_owed,
    )


def write(directory: Path, ports: Mapping[str, SavedPort]) -> None:
    """Write down what is kept. A failure is logged: those sessions are lost, and nothing else."""
    path = directory / FILE_NAME
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _NO_TRAP, _MODE)
        with open(descriptor, "w", encoding="utf-8") as file:
            os.fchmod(descriptor, _MODE)
            file.write(SavedPorts(ports=dict(ports)).model_dump_json())
    except OSError as exc:
        _log.warning("%s: cannot be written (%s); sessions do not outlive this stop", path, exc.strerror)


def take(directory: Path) -> dict[str, SavedPort]:
    """Read what a former daemon has written, and remove it: a later start must not believe it again."""
    path = directory / FILE_NAME
    try:
        content = _read(path)
        path.unlink()
        return SavedPorts.model_validate_json(content).ports
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as exc:
        why = f"{exc.error_count()} errors in it" if isinstance(exc, ValidationError) else str(exc)
        _log.warning("%s: not usable (%s); sessions begin anew", path, why)
        return {}


def _read(path: Path) -> bytes:
    """What this user has written there, and nobody else. Raises OSError."""
    with open(os.open(path, os.O_RDONLY | _NO_TRAP), "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
            raise OSError(errno.EPERM, "it is not a file of the daemon's own")
        return file.read()


def restore(worker: PortWorker, saved: SavedPort) -> None:
    """Let the sessions of a former daemon be parked in this one, with what they held."""
    states = {each.session: SessionState(each.session, each.context, each.client, each.peer) for each in saved.sessions}
    for each in saved.sessions:
        state = states[each.session]
        identity = Identity(uid=each.uid, certificate=each.certificate, token=each.token)
        state.identity = str(identity)
        worker.parking.restore(Ticket(each.digest, worker, state, identity, each.host))
    may_connect = worker.driver.settings.enable_connect_interrupt  # still
    kept = Kept(
        None if saved.owner is None else (states[saved.owner.session], saved.owner.grant),
        tuple(
            KeptRequest(states[each.session], each.msgid, each.output_length, each.timeout_ms) for each in saved.waiters
        ),
        tuple((states[each.session], bytes.fromhex(each.structure)) for each in saved.registrations if may_connect),
        saved.is_check_owed,
    )
    worker.driver.restore(kept, worker.clock.monotonic_ns())
    worker.carry_out()
