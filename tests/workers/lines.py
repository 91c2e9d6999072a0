"""The shape of every line that the SDK prints, as a check that both sides of the pipe agree on.

A line must be recognised by the daemon's classifier under the kind that the worker meant, and hold exactly
the fields that existing readers know, plus those that are named here as ours.
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
OURS = {"worker_id": str, "global_step": int, "metrics": dict, "severity": str, "path": str}

SHAPES = {"step": STEP, "episode": EPISODE, "error": ERROR}


def refuse_constant(text: str) -> Any:
    """Make bare NaN and Infinity an error: our lines are strict JSON."""
    raise ValueError(f"not JSON: {text}")


def checked(raw: bytes) -> Line:
    """Return the line as an object; fail when anything about it is not as promised."""
    assert raw.endswith(b"\n"), f"a torn line: {raw[-80:]!r}"
    assert raw.isascii()
    record: Line = json.loads(raw, parse_constant=refuse_constant)
    kind = record.get("event") or record.get("type")
    assert isinstance(kind, str), record
    shape = LIFECYCLE if "event" in record else SHAPES[kind]
    for name, expected in shape.items():
        assert type(record.get(name)) is expected, f"{kind}.{name}: {record.get(name)!r}"
    for name in record.keys() - shape.keys():
        assert type(record[name]) is OURS[name], f"{kind}.{name}: {record[name]!r}"
    for name in ("action_json", "observation_json", "metadata_json"):
        if name in record:
            json.loads(record[name], parse_constant=refuse_constant)
    recognised = classify(raw)
    assert recognised is not None
    assert recognised.kind == kind
    return record
