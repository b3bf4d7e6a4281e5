"""Lines of the audit trail: JSON, bounded, and harmless to a terminal."""

from __future__ import annotations

import json

import pytest

from lpt_service.server.audit_record import LINE_MAX_BYTES, TEXT_MAX_CHARACTERS, Moment, Record, rfc3339

NOW_NS = 1_700_000_000_123_456_789
HOSTILE = 'a"b\\c\n{"event":"granted"}\r\x00\x1b[2J\x7f\x85\u2028\u202e\ud800\U000e0001é'


def record(**fields: str | int | None) -> Record:
    return Record(NOW_NS, "granted", "LPT1", fields)


def test_a_line() -> None:
    line = record(session=7, client="Müller", reason=None).line()
    expected = '{"time":"2023-11-14T22:13:20.123456Z","event":"granted","port":"LPT1",'
    assert line.decode() == expected + '"session":7,"client":"Müller","reason":null}\n'


def test_a_moment_is_written_as_the_time_of_day() -> None:
    text = "2023-11-14T22:13:20.123456Z"
    moment = Record(NOW_NS + 10**9, "released", None, {"until": Moment(NOW_NS)})
    assert json.loads(moment.line())["until"] == text
    assert moment.text() == f'audit: released until="{text}"'


def test_what_is_about_no_port_names_none() -> None:
    assert json.loads(Record(NOW_NS, "started", None, {}).line()) == {
        "time": "2023-11-14T22:13:20.123456Z",
        "event": "started",
    }


def test_a_line_for_people_leaves_out_what_is_not_there() -> None:
    assert record(session=7, client="a b", reason=None).text() == 'audit: granted port="LPT1" session=7 client="a b"'


@pytest.mark.parametrize("text", [HOSTILE, "\ud800", "\udcff\n", "\u2066"])
def test_a_text_cannot_leave_its_line(text: str) -> None:
    line = record(client=text).line().decode()
    assert line.endswith("}\n")
    assert line[:-1].isprintable()
    assert json.loads(line)["client"] == text
    assert record(client=text).text().isprintable()


def test_fields_of_the_log_are_escaped_and_chosen() -> None:
    fields = Record(NOW_NS, "granted", "LPT1", {"session": 7, "client": "a\nb", "grant": 9, "written": 1}).log_fields()
    assert fields == {"event": "granted", "port": "LPT1", "session": 7, "client": "a\\u000ab", "grant": 9}
    assert Record(NOW_NS, "started", None, {}).log_fields() == {"event": "started"}


@pytest.mark.parametrize("char", ["x", "\n", "é", "\U000e0001", "\ud800"])
def test_a_line_has_a_bound(char: str) -> None:
    names = ("client", "identity", "peer", "why", "reason", "other", "more", "most")
    line = record(**dict.fromkeys(names, char * TEXT_MAX_CHARACTERS), grant=1 << 53).line()
    assert len(line) <= LINE_MAX_BYTES
    found = json.loads(line)
    assert all(found[name] and set(found[name]) == {char} for name in names)


@pytest.mark.parametrize(
    ("time_ns", "text"),
    [
        (0, "1970-01-01T00:00:00.000000Z"),
        (999, "1970-01-01T00:00:00.000000Z"),
        (1_709_164_799_999_999_999, "2024-02-28T23:59:59.999999Z"),
        (1_709_164_800_000_001_000, "2024-02-29T00:00:00.000001Z"),
    ],
)
def test_times(time_ns: int, text: str) -> None:
    assert rfc3339(time_ns) == text
