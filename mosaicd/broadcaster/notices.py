"""Encoded notifications for watchers: events, progress, gaps.  Each has less than 4 KiB.

The params of an event are the same from memory and from the ledger.  They begin with the fields that all
events have; the event's own data follows, flattened, and never replaces one of these fields.
"""

import json
from collections.abc import Mapping
from typing import Any

from mosaicd.core.run import Progress, Run
from mosaicd.protocol import Json
from mosaicd.protocol.framing import SMALL_LIMIT_BYTES, encode, request
from mosaicd.store.history import StoredEvent
from mosaicd.store.registry import Committed

#: Bytes of a message for the envelope and the subscription's number.
ENVELOPE_BYTES = 128
BODY_LIMIT_BYTES = SMALL_LIMIT_BYTES - ENVELOPE_BYTES
LONGEST_TEXT = 200
#: The fields of a run in its `submitted` event; run.get has the others.
SUBMITTED_FIELDS = ("name", "owner", "worker_kind", "priority", "digest", "origin", "held")

_encoder = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=dict)


def committed_body(commit: Committed) -> bytes:
    """Return the params of a `run.event` from memory, without the subscription."""
    run, event = commit.run, commit.event
    head = {
        "seq": commit.seq, "run_id": run.run_id, "kind": event.kind, "at": event.at, "who": event.who,
        "attempt": run.attempt, "rev": run.rev, "state": run.state, "want": run.want, "outcome": run.outcome,
    }  # fmt: skip
    return _body(head, event.data)


def stored_body(event: StoredEvent) -> bytes:
    """Return the params of a `run.event` from the ledger, without the subscription."""
    head = {
        "seq": event.seq, "run_id": event.run_id, "kind": event.kind, "at": event.at, "who": event.who,
        "attempt": event.attempt, "rev": event.rev, "state": event.state, "want": event.want,
        "outcome": event.outcome,
    }  # fmt: skip
    return _body(head, event.data)


def event_line(subscription: int, body: bytes) -> bytes:
    """Return the notification of an event to one watcher."""
    head = b'{"jsonrpc":"2.0","method":"run.event","params":{"subscription":%d,' % subscription
    return head + body[1:] + b"}\n"


def gap_line(subscription: int, first: int, last: int) -> bytes:
    """Return the notification that the events `first` to `last` were left out."""
    return encode(request("run.gap", {"subscription": subscription, "from": first, "to": last}, None))


def progress_line(subscription: int, run: Run, progress: Progress) -> bytes:
    """Return the notification of a live run's last values; excess metrics are left out."""
    params: Json = {
        "subscription": subscription, "run_id": run.run_id, "attempt": run.attempt, "state": run.state,
        "last_heartbeat_at": progress.last_heartbeat_at, "progress": progress.to_dict(),
        "metrics": dict(progress.metrics),
    }  # fmt: skip
    line = encode(request("run.progress", params, None))
    if len(line) >= SMALL_LIMIT_BYTES:
        line = encode(request("run.progress", {**params, "metrics": {}, "reduced": ["metrics"]}, None))
    return line


def _body(head: Json, data: Mapping[str, Any]) -> bytes:
    """Return the encoded params: `head`, then the fields of the event, reduced if they are too large."""
    fields = {name: value for name, value in data.items() if name not in head and name != "subscription"}
    run = fields.pop("run", None)
    if isinstance(run, Mapping):
        fields |= {name: run[name] for name in SUBMITTED_FIELDS if name in run}
    body = _encode({**head, **fields})
    if len(body) <= BODY_LIMIT_BYTES:
        return body
    return _encode({**head, **_reduced(fields, BODY_LIMIT_BYTES - len(_encode(head)))})


def _reduced(fields: Json, limit_bytes: int) -> Json:
    """Return `fields` with texts cut, then the largest left out, until all fit; `reduced` names them."""
    reduced: Json = dict(fields)
    touched: list[str] = []
    sizes = {name: len(_encode({name: value})) for name, value in fields.items()}
    for name in sorted(sizes, key=sizes.__getitem__, reverse=True):
        touched.append(name)
        value = reduced[name]
        if isinstance(value, str) and len(value) > LONGEST_TEXT:
            reduced[name] = value[:LONGEST_TEXT] + "…"
            if len(_encode({**reduced, "reduced": touched})) <= limit_bytes:
                break
        del reduced[name]
        if len(_encode({**reduced, "reduced": touched})) <= limit_bytes:
            break
    return {**reduced, "reduced": touched[:32]}


def _encode(value: Any) -> bytes:
    return _encoder.encode(value).encode()
