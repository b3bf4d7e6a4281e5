"""docs/vectors.json: it is what `make_vectors` makes, every entry agrees with the codec, and nothing is left out."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from lpt_service.protocol import codec, messages, structs
from lpt_service.protocol.codec import BEFORE_HELLO_LIMITS, CLIENT_LIMITS, DAEMON_LIMITS
from lpt_service.protocol.ioctl import CONTROL_CODES, Ioctl, IoctlClass
from lpt_service.protocol.messages import Message, Notification, Request, Response
from lpt_service.protocol.status import Status
from tests.protocol import make_vectors
from tests.protocol.vectors.notation import from_json
from tests.protocol.wire import WAYS, decode, message_of

VECTORS: dict[str, Any] = json.loads(make_vectors.PATH.read_text(encoding="utf-8"))
CONVERSATIONS: dict[str, list[dict[str, Any]]] = {each["name"]: each["steps"] for each in VECTORS["conversations"]}
STEPS = [
    *(pytest.param(each, id=each["name"]) for each in VECTORS["frames"]),
    *(pytest.param(step, id=f"{name} {i}") for name, steps in CONVERSATIONS.items() for i, step in enumerate(steps)),
]
LIMITS = {"daemon": DAEMON_LIMITS, "daemon before hello": BEFORE_HELLO_LIMITS, "client": CLIENT_LIMITS}


def message(step: dict[str, Any]) -> Message:
    return message_of(from_json(step["message"]))


def all_messages(direction: str) -> list[Message]:
    steps = [*VECTORS["frames"], *(step for steps in CONVERSATIONS.values() for step in steps)]
    return [message(step) for step in steps if step["direction"] == direction]


def encode(given: Message) -> bytes:
    """A message as this project's programs encode it."""
    if isinstance(given, Request):
        return codec.encode_request(*given)
    if isinstance(given, Notification):
        if given.method == messages.INTERRUPT:
            return codec.encode_interrupt(*given.params)
        return codec.encode_notification(*given)
    if given.error is None:
        return codec.encode_result(given.msgid, given.result)
    if len(given.error) == 3:
        return codec.encode_error(given.msgid, *given.error)
    return b""  # of a later version


def test_the_file_is_up_to_date() -> None:
    made = make_vectors.render(make_vectors.make()) + "\n"
    assert make_vectors.PATH.read_text(encoding="utf-8") == made, "run: python -m tests.protocol.make_vectors"


def test_names_are_unique() -> None:
    for section in ("frames", "structures", "invalid", "conversations"):
        names = [each["name"] for each in VECTORS[section]]
        assert len(names) == len(set(names))


@pytest.mark.parametrize("step", STEPS)
def test_bytes_mean_the_message(step: dict[str, Any]) -> None:
    expected, data = message(step), bytes.fromhex(step["hex"])
    limits = DAEMON_LIMITS if step["direction"] == "client" else CLIENT_LIMITS
    for way in WAYS:
        assert decode(way(data), limits) == ([expected], None)
    if step.get("canonical", True):
        assert encode(expected) in (data, b"")
    else:
        assert encode(expected) != data


@pytest.mark.parametrize("invalid", VECTORS["invalid"], ids=lambda each: each["name"])
def test_invalid_bytes_end_the_conversation(invalid: dict[str, Any]) -> None:
    data, limits = bytes.fromhex(invalid["hex"]), LIMITS[invalid["receiver"]]
    for way in WAYS:
        decoded, fault = decode(way(data), limits)
        assert decoded == []
        assert fault is not None
        if match := re.match(r"a frame of ([\d,]+) bytes", invalid["name"]):
            assert f"frame too large: {match[1].replace(',', '')} bytes" in fault, "the name is exact"


def test_what_is_too_large_before_hello_is_not_afterwards() -> None:
    (invalid,) = (each for each in VECTORS["invalid"] if each["receiver"] == "daemon before hello")
    assert decode([bytes.fromhex(invalid["hex"])], DAEMON_LIMITS) == ([], None)


@pytest.mark.parametrize("structure", VECTORS["structures"], ids=lambda each: each["name"])
def test_structures(structure: dict[str, Any]) -> None:
    ours, data = getattr(structs, structure["name"]), bytes.fromhex(structure["hex"])
    members = from_json(structure["members"])
    assert ours.SIZE == structure["size"] == len(data)
    assert ours(**members).pack() == data
    assert ours.unpack(data) == ours(**members)


# Nothing is left out


def test_every_method_is_there() -> None:
    requests = [each for each in all_messages("client") if isinstance(each, Request)]
    known = {messages.HELLO, messages.PING, messages.STATUS, *(member.value for member in IoctlClass)}
    assert {each.method for each in requests} == known | {"format_disk"}
    assert messages.CANCEL in {each.method for each in all_messages("client") if isinstance(each, Notification)}


def test_every_control_code_is_there_with_buffers_of_its_sizes() -> None:
    frames = [message(each) for each in VECTORS["frames"] if each["direction"] == "client"]
    controls = [each.params for each in frames if isinstance(each, Request) and "control" in each.method]
    for row in CONTROL_CODES:
        sizes = [(len(params[1]), params[2]) for params in controls if params[0] == row.code]
        assert sizes, row.name
        assert all(given >= row.input_bytes and room >= row.output_bytes for given, room in sizes), row.name
    assert {params[0] for params in controls} == set(Ioctl)


def test_every_notification_is_there_with_every_kind_and_reason() -> None:
    frames = [message(each) for each in VECTORS["frames"] if each["direction"] == "daemon"]
    notices = [each for each in frames if isinstance(each, Notification)]
    assert {each.method for each in notices} == {*messages.NOTIFICATIONS, "weather"}
    assert {each.params[5] for each in notices if each.method == messages.INTERRUPT} == {0, 1, 2, 3, 4}
    assert {each.params[0] for each in notices if each.method == messages.INTERRUPT_SYNC} == {
        *(messages.SYNC_CONNECTED, messages.SYNC_RESUMED, messages.SYNC_OVERRUN, messages.SYNC_RESTARTED)
    }


def test_every_status_of_the_table_of_errors_is_there() -> None:
    replies = [step for steps in CONVERSATIONS.values() for step in map(message, steps) if isinstance(step, Response)]
    told = {each.error[0] for each in replies if each.error is not None}
    assert told == {status for status in Status if status.is_error}


# Conversations hang together


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_a_conversation_is_one(name: str) -> None:
    """Replies answer pending requests, nothing but `closing` is said before hello, and after `closing` nothing."""
    pending: set[int] = set()
    is_open = is_closed = False
    for step in CONVERSATIONS[name]:
        said = message(step)
        assert not is_closed, "nothing follows `closing`"
        if isinstance(said, Request):
            assert said.msgid not in pending or "used again" in name
            pending.add(said.msgid)
        elif isinstance(said, Response):
            pending.remove(said.msgid)
            if isinstance(said.result, dict):
                is_open = True
            assert is_open or said.error is not None
        elif step["direction"] == "daemon":
            is_closed = said.method == messages.CLOSING
            assert is_open or is_closed
    assert is_closed or not pending


@pytest.mark.parametrize("name", [name for name in CONVERSATIONS if name.startswith("interrupts")])
def test_received_and_lost_are_all(name: str) -> None:
    """The invariant, within each conversation: every number is accounted for once."""
    expected: int | None = None
    for step in CONVERSATIONS[name]:
        said = message(step)
        if not isinstance(said, Notification):
            continue
        if said.method == messages.INTERRUPT_SYNC:
            reason, next_seq, lost = said.params
            assert expected is None or expected + lost == next_seq, reason
            expected = next_seq
        elif said.method == messages.INTERRUPT:
            seq, _, count, _, _, kind = said.params
            assert seq == expected
            assert (count == 0) is (kind != messages.KIND_EVENT)
            expected = seq + count
    assert expected is not None
