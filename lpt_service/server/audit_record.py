"""A record of the audit trail, as a line of JSON and as a line for people: bounded, and safe to print."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final, NamedTuple

from lpt_service.core.effects import Granted, Released
from lpt_service.core.requests import SessionState
from lpt_service.server.clock import Clock

# Of a text, which may come from a client; in a line that is too long, of each of its texts.
TEXT_MAX_CHARACTERS: Final = 200
_SHORT_TEXT_CHARACTERS: Final = 20
LINE_MAX_BYTES: Final = 4096
# What a log record may have as fields of its own.
_LOG_FIELDS: Final = ("session", "client", "identity", "grant")


class Moment(NamedTuple):
    """A time of day, to be written as such."""

    realtime_ns: int


Value = str | int | Moment | None | Mapping[str, int]


class Record(NamedTuple):
    """Something that happened at a time of day. The texts among `fields` have at most TEXT_MAX_CHARACTERS."""

    realtime_ns: int
    event: str
    port: str | None
    fields: Mapping[str, Value]

    def line(self) -> bytes:
        """JSON, with a line break."""
        line = self._json(TEXT_MAX_CHARACTERS)
        return line if len(line) <= LINE_MAX_BYTES else self._json(_SHORT_TEXT_CHARACTERS)

    def _json(self, characters: int) -> bytes:
        about = {} if self.port is None else {"port": self.port}
        fields = {name: _plain(value, characters) for name, value in self.fields.items()}
        values = {"time": rfc3339(self.realtime_ns), "event": self.event, **about, **fields}
        return _escaped(json.dumps(values, ensure_ascii=False, separators=(",", ":"))).encode() + b"\n"

    def text(self) -> str:
        """A line for people: the same as NAME=VALUE."""
        values = {"port": self.port, **self.fields}
        parts = (
            f"{name}={json.dumps(_plain(value), ensure_ascii=False)}"
            for name, value in values.items()
            if value is not None
        )
        return _escaped(" ".join((f"audit: {self.event}", *parts)))

    def log_fields(self) -> dict[str, str | int]:
        """What the log shows beside the line."""
        found: dict[str, str | int] = {"event": self.event}
        for name, value in (("port", self.port), *((name, self.fields.get(name)) for name in _LOG_FIELDS)):
            if isinstance(value, str | int):
                found[name] = _escaped(value) if isinstance(value, str) else value
        return found


def _plain(value: Value, characters: int = TEXT_MAX_CHARACTERS) -> str | int | Mapping[str, int] | None:
    """A value as JSON can have it."""
    if isinstance(value, Moment):
        return rfc3339(value.realtime_ns)
    return value[:characters] if isinstance(value, str) else value


def _escaped(text: str) -> str:
    """Without control characters, line breaks of any kind, marks of direction and lone surrogates: as JSON has them."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escaped_character(char) for char in text)


def _escaped_character(char: str) -> str:
    return f"\\u{ord(char):04x}" if ord(char) < 0x10000 else json.dumps(char)[1:-1]


def rfc3339(realtime_ns: int) -> str:
    """A time of day in UTC, with microseconds."""
    seconds, rest_ns = divmod(realtime_ns, 1_000_000_000)
    moment = datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest_ns // 1000, tzinfo=None)
    return f"{moment.isoformat(timespec='microseconds')}Z"


def who(session: SessionState) -> dict[str, Value]:
    """The fields that say who did something."""
    return {
        "session": session.session,
        "client": session.client,
        "identity": session.identity,
        "peer": session.peer,
    }


def ownership(effect: Granted | Released, clock: Clock) -> dict[str, Value]:
    """The fields about an ownership that has begun, or ended."""
    fields: dict[str, Value] = {"grant": effect.grant, **who(effect.session)}
    if isinstance(effect, Released):
        from_monotonic_ns = clock.realtime_ns() - clock.monotonic_ns()
        fields |= {
            "since": Moment(effect.since_ns + from_monotonic_ns),
            "until": Moment(effect.until_ns + from_monotonic_ns),
            "why": effect.why,
            "bytes_written": effect.written,
            "interrupts": effect.interrupts,
        }
    return fields


def bounded(fields: Mapping[str, Value]) -> dict[str, Value]:
    """The same, with texts of at most TEXT_MAX_CHARACTERS."""
    return {name: value[:TEXT_MAX_CHARACTERS] if isinstance(value, str) else value for name, value in fields.items()}
