"""docs/protocol.md says what the code does: its tables, its numbers, its conversation in bytes."""

from __future__ import annotations

import dataclasses
import re
import struct
from typing import Any

import pytest

from lpt_service.config import LimitsConfig
from lpt_service.core.requests import Options
from lpt_service.core.settings import PortSettings
from lpt_service.core.storm_guard import FIRST_PAUSE_NS, LONGEST_PAUSE_NS
from lpt_service.port.simulated import CONTROL_LINES, STATUS_LINES
from lpt_service.protocol import messages, structs
from lpt_service.protocol.codec import (
    BEFORE_HELLO_LIMITS,
    CLIENT_LIMITS,
    DAEMON_LIMITS,
    INTERRUPT_FRAME_BYTES,
    encode_interrupt,
)
from lpt_service.protocol.frame_scanner import Limits
from lpt_service.protocol.ioctl import (
    CONTROL,
    CONTROL_CODES,
    CONTROL_DIRECTION_INPUT,
    CONTROL_INTERRUPT_ENABLE,
    PULSE_WIDTH_MAX_US,
    STATUS,
    Ioctl,
    IoctlClass,
    Role,
)
from lpt_service.protocol.status import Status
from lpt_service.protocol.url import Url
from lpt_service.server.hello import Hello
from lpt_service.server.methods import METHODS
from lpt_service.server.session import FRAME_TIMEOUT_S, HELLO_TIMEOUT_S
from tests.docs import conversation
from tests.docs.daemon import running_daemon
from tests.docs.markdown import DOCS, blocks, read, table

PAGE = read(DOCS / "protocol.md")
STRUCTURES = (
    structs.PARALLEL_INTERRUPT_SERVICE_ROUTINE,
    structs.PARALLEL_INTERRUPT_INFORMATION,
    structs.PARALLEL_PORT_INFORMATION,
    structs.MORE_PARALLEL_PORT_INFORMATION,
    structs.PARALLEL_PNP_INFORMATION,
)


def keys(header: str, heading: str) -> set[str]:
    """The first column of a table of keys."""
    return {row[0] for row in table(PAGE, header=(header,), heading=heading).rows}


# Tables


def test_control_codes() -> None:
    rows = table(PAGE, header=("Function", "Code", "Name")).rows
    expected = []
    for row in CONTROL_CODES:
        flags = {"owner": row.owner_only, "port": row.needs_port, "gate": row.gated, "context": row.takes_context}
        flags["use"] = row.role is Role.USE
        expected.append(
            (
                str(row.function) if row.function < 0x800 else f"0x{row.function:X}",
                f"0x{row.code:06X}",
                row.name,
                "both" if len(row.classes) == 2 else "internal",
                str(row.input_bytes),
                str(row.output_bytes),
                ", ".join(name for name, is_set in flags.items() if is_set) or "\N{EN DASH}",
            )
        )
    assert rows == expected


def test_every_control_code_is_described() -> None:
    described = set(re.findall(r"\*\*([A-Z_]{3,})\*\*", PAGE))
    assert {code.name for code in Ioctl} <= described


def test_statuses() -> None:
    rows = {(row[0], row[1]) for row in table(PAGE, header=("Status", "Name", "Meaning here")).rows}
    assert rows == {(f"0x{status:08X}", status.name) for status in Status}


def test_cases_name_statuses_that_exist() -> None:
    for _, cell, then in table(PAGE, header=("Case (ours where Windows has none)",)).rows:
        for name in re.findall(r"[A-Z_]{4,}", cell):
            assert f"STATUS_{name}" in Status.__members__
        assert then in ("goes on", "ends", "ends after the reply")


def test_methods() -> None:
    assert {name for row in keys("Method", "Methods") for name in row.split(", ")} == set(METHODS)
    assert {each.value for each in IoctlClass} < keys("Method", "Methods")
    assert f"`{messages.CANCEL}` `[msgid]`" in PAGE


def test_keys_of_hello() -> None:
    fields = {"from" if name == "resume_from" else name for name in Hello._fields}
    assert keys("Key", "hello") == fields


def test_options() -> None:
    fields = {"from" if field.name == "resume_from" else field.name for field in dataclasses.fields(Options)}
    assert keys("Option", "Options of a control request") == fields


def test_notifications() -> None:
    rows = table(PAGE, header=("Method", "Params"), heading="Notifications").rows
    assert [row[0] for row in rows] == list(messages.NOTIFICATIONS)


def test_kinds_of_log_entries() -> None:
    rows = table(PAGE, header=("Kind", "Name")).rows
    expected = [(str(value), name.lower()) for name, value in vars(messages).items() if name.startswith("KIND_")]
    assert [(row[0], row[1]) for row in rows] == [(value, name.removeprefix("kind_")) for value, name in expected]


def test_reasons_of_interrupt_sync() -> None:
    reasons = {value for name, value in vars(messages).items() if name.startswith("SYNC_")}
    assert keys("Reason", "interrupt_sync") == reasons


def test_limits_on_frames() -> None:
    def column(limits: Limits) -> list[str]:
        sizes = (limits.max_frame_bytes, limits.max_items, limits.max_string_bytes, limits.max_nesting)
        return [f"{size:,}" for size in sizes]

    columns = list(zip(*table(PAGE, heading="Limits on frames").rows, strict=True))
    assert [list(each) for each in columns[1:]] == list(
        map(column, (DAEMON_LIMITS, BEFORE_HELLO_LIMITS, CLIENT_LIMITS))
    )


@pytest.mark.parametrize("structure", STRUCTURES, ids=lambda each: each.__name__)
def test_structures(structure: Any) -> None:
    rows = [(row[0], int(row[1]), int(row[2])) for row in table(PAGE, heading=structure.__name__).rows]
    names = [field.name for field in dataclasses.fields(structure)]
    expected: list[tuple[str, int, int]] = []
    offset = 0
    for count, kind in re.findall(r"(\d*)([QIx])", structure._LAYOUT.format):
        for _ in range(1 if kind == "x" else int(count or 1)):
            size = int(count or 1) if kind == "x" else struct.calcsize(f"<{kind}")
            if kind != "x":
                expected.append((names[len(expected)], offset, size))
            offset += size
    assert rows == expected
    assert offset == structure.SIZE
    assert f"\n{structure.SIZE} bytes" in PAGE.split(f"### {structure.__name__}\n")[1].split("\n##")[0]


def test_registers() -> None:
    status = {(f"status ({STATUS})", f"0x{bit:02X}", name) for name, bit in STATUS_LINES.items()}
    control = {(f"control ({CONTROL})", f"0x{bit:02X}", name) for name, bit in CONTROL_LINES.items()}
    rows = table(PAGE, heading="Registers").rows
    assert {row[:3] for row in rows} == status | control
    assert {row[2] for row in rows if row[3] == "yes"} == {"Busy", "nStrobe", "nAutoFd", "nSelectIn"}
    assert f"- 0x{CONTROL_INTERRUPT_ENABLE:02X}, interrupt enable" in PAGE
    assert f"- 0x{CONTROL_DIRECTION_INPUT:02X}, the direction" in PAGE


# Numbers in the text


@pytest.mark.parametrize(
    "text",
    [
        f"default TCP port is {messages.DEFAULT_TCP_PORT}, the default Unix socket `{messages.DEFAULT_UNIX_SOCKET}`",
        f"| no hello | {HELLO_TIMEOUT_S:.0f} s |",
        f"| a frame begun and not finished | {FRAME_TIMEOUT_S:.0f} s |",
        f"`dead_peer_s` ({LimitsConfig().dead_peer_s:.0f} s by default)",
        f"`unread_reply_s` ({LimitsConfig().unread_reply_s:.0f} s by default)",
        f"once {LimitsConfig().max_backlog_bytes // 1024} KiB of them wait",
        f"fixed size, {INTERRUPT_FRAME_BYTES} bytes",
        f"`interrupt_log_frames` entries ({PortSettings('').interrupt_log_frames:,} by default)",
        f"`interrupt_linger_s` ({PortSettings('').interrupt_linger_ns / 1e9:.0f} s by default)",
        f"`max_interrupt_rate_hz`, {PortSettings('').max_interrupt_rate_hz:,} by default",
        f"a pause of {FIRST_PAUSE_NS / 1e9:.0f} s, which doubles with each storm",
        f"up to {LONGEST_PAUSE_NS / 1e9:.0f} s",
        f"Width 1 µs to {PULSE_WIDTH_MAX_US // 1_000_000} s",
    ],
)
def test_numbers(text: str) -> None:
    assert " ".join(text.split()).lower() in " ".join(PAGE.split()).replace("**", "").lower()


def test_bytes_of_an_interrupt() -> None:
    shape = '93 02 a9"interrupt" 96 cf seq cf timestamp_ns ce count cc status cc control cc kind'
    assert f"`{shape}`" in PAGE
    numbers = {
        "seq": (8, 1),
        "timestamp_ns": (8, 2),
        "count": (4, 3),
        "status": (1, 4),
        "control": (1, 5),
        "kind": (1, 6),
    }
    data = b""
    for word in shape.replace('"interrupt"', " interrupt").split():
        if word in numbers:
            data += numbers[word][1].to_bytes(numbers[word][0], "big")
        else:
            data += word.encode() if word == "interrupt" else bytes.fromhex(word)
    assert data == encode_interrupt(1, 2, 3, 4, 5, 6)


def test_there_are_eleven_semantics() -> None:
    section = PAGE.split("\n## Semantics\n")[1].split("\n## ")[0]
    assert re.findall(r"^(\d+)\. ", section, re.MULTILINE) == [str(number) for number in range(1, 12)]


# The conversation in bytes


def the_conversation() -> list[conversation.Frame]:
    return conversation.read_back(
        next(block.text for block in blocks(PAGE, "text") if block.text.startswith("# hello"))
    )


def test_every_frame_says_what_stands_beside_it() -> None:
    for frame in the_conversation():
        if not frame.meaning:
            assert frame.data == b"\xc1", "the one that is no frame"
            continue
        said = conversation.notation(conversation.frame_of(conversation.decode(frame.sender, frame.data)))
        assert re.sub(r"\s", "", said) == re.sub(r"\s", "", frame.meaning)


def blurred(value: Any, key: str = "") -> Any:
    """A value without what differs from run to run: large numbers, the session's, handles and grants, the version."""
    if isinstance(value, tuple):
        return tuple(blurred(item) for item in value)
    if isinstance(value, dict):
        return {key: blurred(item, key) for key, item in value.items()}
    if key == "server":
        return re.sub(r" .*", "", value)
    if key == "session" or (isinstance(value, int) and value >= 1 << 24):
        return "a number"
    if isinstance(value, bytes):
        return {8: b"8 bytes", 40: b"8 bytes" + value[8:24] + b"8 bytes" + value[32:]}.get(len(value), value)
    return value


def test_a_daemon_holds_the_conversation() -> None:
    frames = iter(the_conversation())
    with running_daemon() as url:  # one of its own: nobody may have raised D3 before
        for step, answers in conversation.hold(url):
            assert next(frames).data == step.data
            for data in answers:
                now, then = (
                    conversation.frame_of(conversation.decode("D", each)) for each in (data, next(frames).data)
                )
                assert blurred(now) == blurred(then)
    assert next(frames, None) is None


def test_the_interrupt_object_is_the_stream() -> None:
    answers = [each for each in the_conversation() if each.sender == "D" and each.meaning]
    hello, connected = (conversation.frame_of(conversation.decode("D", answers[index].data)) for index in (0, 2))
    assert connected[3][1][:8] == hello[3]["stream"].to_bytes(8, "little")


# Answers that are maps


def test_keys_of_answers(daemon_url: Url) -> None:
    with conversation.connected(daemon_url) as ask:
        hello = ask("hello", ({"protocol": 1},))
        grant = int.from_bytes(ask(IoctlClass.INTERNAL, (int(Ioctl.PARALLEL_PORT_ALLOCATE), b"", 8))[1], "little")
        ask(IoctlClass.INTERNAL, (int(Ioctl.PARALLEL_CONNECT_INTERRUPT), conversation.ISR, 32))
        status = ask("status", ())
    assert keys("Key", "The answer to hello") == {*hello, "resume", "resumed"}  # the latter where there is grace
    assert keys("Key of limits", "The answer to hello") == {*hello["limits"], "grace_s"}
    assert keys("Key", "The answer to status") == set(status)
    assert keys("Key of interrupts", "The answer to status") == set(status["interrupts"])
    assert keys("Key of counters", "The answer to status") == set(status["counters"])
    assert status["owner"]["grant"] == grant
    told = {row[0]: row[1] for row in table(PAGE, header=("Key",), heading="The answer to status").rows}
    for key, example in (("owner", status["owner"]), ("registrations", status["registrations"][0])):
        listed = told[key].split("maps: " if "maps: " in told[key] else "map: ")[1]
        assert set(re.sub(r" \(.*?\)", "", listed).split(", ")) == set(example)


# The client in another language


def test_the_client_on_the_page_is_the_file() -> None:
    (block,) = blocks(PAGE, "js")
    assert block.text == read(DOCS.parent / "clients/examples/minimal_client.mjs")
