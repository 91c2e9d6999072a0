"""A check of every line that the SDK prints.

The daemon's classifier must recognise the line as the kind that the worker printed.  The line must have
exactly the fields of the original protocol (LIFECYCLE, STEP, EPISODE, ERROR) and may have those of EXTRA.
"""

import json
from typing import Any

from mosaicd.protocol.telemetry import classify

Line = dict[str, Any]

LIFECYCLE = {"event": str, "run_id": str, "timestamp": float, "payload": dict}
STEP = {
    "type": str, "run_id": str, "agent_id": str, "episode_index": int, "step_index": int, "action_json": str,
    "observation_json": str, "reward": float, "terminated": bool, "truncated": bool, "policy_label": str,
    "backend": str, "ts_unix_ns": int,
}  # fmt: skip
EPISODE = {
    "type": str, "run_id": str, "agent_id": str, "episode_index": int, "total_reward": float, "steps": int,
    "terminated": bool, "truncated": bool, "metadata_json": str, "ts_unix_ns": int,
}  # fmt: skip
ERROR = {"type": str, "run_id": str, "message": str, "ts_unix_ns": int}
EXTRA = {"worker_id": str, "global_step": int, "metrics": dict, "severity": str, "path": str}

SHAPES = {"step": STEP, "episode": EPISODE, "error": ERROR}


def refuse_constant(text: str) -> Any:
    """Raise an error for NaN and Infinity: the lines must be strict JSON."""
    raise ValueError(f"not JSON: {text}")


def checked(raw: bytes) -> Line:
    """Return the line as an object; fail if the line breaks the protocol."""
    assert raw.endswith(b"\n"), f"an incomplete line: {raw[-80:]!r}"
    assert raw.isascii()
    record: Line = json.loads(raw, parse_constant=refuse_constant)
    kind = record.get("event") or record.get("type")
    assert isinstance(kind, str), record
    shape = LIFECYCLE if "event" in record else SHAPES[kind]
    for name, expected in shape.items():
        assert type(record.get(name)) is expected, f"{kind}.{name}: {record.get(name)!r}"
    for name in record.keys() - shape.keys():
        assert type(record[name]) is EXTRA[name], f"{kind}.{name}: {record[name]!r}"
    for name in ("action_json", "observation_json", "metadata_json"):
        if name in record:
            json.loads(record[name], parse_constant=refuse_constant)
    recognised = classify(raw)
    assert recognised is not None
    assert recognised.kind == kind
    return record
