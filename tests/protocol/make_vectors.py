"""Makes docs/vectors.json: frames and conversations with their bytes, for authors of other clients.

    python -m tests.protocol.make_vectors

The test beside it compares the file with what this makes, and every entry with the codec.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.protocol.vectors import conversations, refusals
from tests.protocol.vectors.frames import FRAMES, STRUCTURES
from tests.protocol.vectors.invalid import INVALID, Invalid
from tests.protocol.vectors.notation import Step, to_json

PATH = Path(__file__).parents[2] / "docs" / "vectors.json"

ABOUT = (
    "Examples of lpt-service's protocol, version 1 (docs/protocol.md), with their bytes.",
    "direction: who sends it. hex: its bytes, back to back with those before and after it.",
    "message: the frame as JSON. {'bin': hex} is MessagePack bin, {'u64': decimal} an integer beyond 2^53.",
    "canonical false: the same message in another legal encoding, or with its method as bin. It means the same.",
    "frames: single frames. structures: the buffers of control requests, little-endian.",
    "invalid: bytes that end the conversation at the named receiver.",
    "conversations: in the order in which the client sees the frames.",
    "Values that differ from session to session (session, stream, grants, contexts, times) are examples.",
    "The last item of an error, and the reasons of revoked and closing, are free text.",
)


def _step(step: Step) -> dict[str, Any]:
    entry: dict[str, Any] = {"direction": step.direction}
    if step.meaning:
        entry["meaning"] = step.meaning
    if not step.is_canonical:
        entry["canonical"] = False
    return {**entry, "message": to_json(step.frame), "hex": step.data.hex()}


def _structure(data: bytes, members: Mapping[str, int]) -> dict[str, Any]:
    return {"size": len(data), "members": to_json(dict(members)), "hex": data.hex()}


def _invalid(invalid: Invalid) -> dict[str, Any]:
    return {"receiver": invalid.receiver, "reason": invalid.reason, "hex": invalid.data.hex()}


def make() -> dict[str, Any]:
    """The vectors as JSON."""
    told = {**conversations.CONVERSATIONS, **refusals.CONVERSATIONS}
    return {
        "version": 1,
        "about": ABOUT,
        "frames": [{"name": name, **_step(step)} for name, step in FRAMES.items()],
        "structures": [{"name": name, **_structure(*each)} for name, each in STRUCTURES.items()],
        "invalid": [{"name": name, **_invalid(each)} for name, each in INVALID.items()],
        "conversations": [{"name": name, "steps": [_step(step) for step in steps]} for name, steps in told.items()],
    }


def render(value: Any, key: str = "", indent: str = "") -> str:
    """JSON as a person would write it: one entry a line, but a message or a structure's members on one."""
    inner = indent + "  "
    if not isinstance(value, (dict, list, tuple)) or key in ("message", "members"):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, dict):
        lines = [f"{inner}{json.dumps(name)}: {render(each, name, inner)}" for name, each in value.items()]
        return "{\n" + ",\n".join(lines) + f"\n{indent}}}"
    return "[\n" + ",\n".join(inner + render(each, "", inner) for each in value) + f"\n{indent}]"


if __name__ == "__main__":
    PATH.write_text(render(make()) + "\n", encoding="utf-8")
    print(f"{PATH}: {PATH.stat().st_size} bytes")
