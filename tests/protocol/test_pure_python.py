"""A client's machine may have msgpack in pure Python only: the same vectors, and threads that pack at the same time."""

import os
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parents[2]

VECTORS_SCRIPT = """
import json
from lpt_service.protocol import codec
from lpt_service.protocol.codec import CLIENT_LIMITS, Decoder
from lpt_service.protocol.errors import ConversationError
from tests.protocol.make_vectors import PATH
from tests.protocol.vectors.notation import from_json
from tests.protocol.wire import WAYS, decode, message_of

assert not codec.is_accelerated()
vectors = json.loads(PATH.read_text(encoding="utf-8"))
steps = [*vectors["frames"], *(step for each in vectors["conversations"] for step in each["steps"])]
for step in steps:
    expected = message_of(from_json(step["message"]))
    for way in WAYS:
        assert decode(way(bytes.fromhex(step["hex"])), CLIENT_LIMITS) == ([expected], None)
for invalid in vectors["invalid"]:
    for way in WAYS:
        messages, fault = decode(way(bytes.fromhex(invalid["hex"])))
        assert messages == []
        assert fault is not None or invalid["receiver"] != "daemon", invalid["name"]
print(len(steps), len(vectors["invalid"]))
"""

THREADS_SCRIPT = """
import sys
import threading
from lpt_service.protocol import codec

assert not codec.is_accelerated()
sys.setswitchinterval(1e-6)
wrong = []

def pack(msgid):
    expected = codec.encode_request(msgid, "ping", (msgid, "text", bytes(50)))
    for _ in range(300):
        if codec.encode_request(msgid, "ping", (msgid, "text", bytes(50))) != expected:
            wrong.append(msgid)

threads = [threading.Thread(target=pack, args=(msgid,)) for msgid in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(len(wrong))
"""


def run(script: str) -> str:
    environment = os.environ | {"MSGPACK_PUREPYTHON": "1", "PYTHONPATH": str(PROJECT)}
    ran = subprocess.run(
        [sys.executable, "-c", script], cwd=PROJECT, env=environment, check=True, capture_output=True, text=True
    )
    return ran.stdout.strip()


def test_the_vectors_hold() -> None:
    steps, invalid = map(int, run(VECTORS_SCRIPT).split())
    assert steps > 200
    assert invalid > 30


def test_threads_that_pack_at_the_same_time_do_not_mix_their_frames() -> None:
    assert run(THREADS_SCRIPT) == "0"
