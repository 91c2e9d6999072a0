"""What each method answers, as JSON Schema: the other half of the OpenRPC document.

A schema names what a caller may rely on; replies may hold more.  Keys are METHODS' result names.
"""

from collections.abc import Iterable, Mapping

from mosaicd.protocol import Json
from mosaicd.protocol.states import Outcome, State, Want

TEXT: Json = {"type": "string"}
WHOLE: Json = {"type": "integer"}
NUMBER: Json = {"type": "number"}
FLAG: Json = {"type": "boolean"}
OBJECT: Json = {"type": "object"}


def _or_null(schema: Json) -> Json:
    return {"anyOf": [schema, {"type": "null"}]}


def _list(schema: Json) -> Json:
    return {"type": "array", "items": schema}


def _object(**properties: Json) -> Json:
    """Return the schema of an object that has all of `properties`, and perhaps more."""
    return {"type": "object", "properties": properties, "required": list(properties)}


def _words(words: Iterable[str]) -> Json:
    return {"type": "string", "enum": [str(word) for word in words]}


SLOTS = _object(total=WHOLE, free=WHOLE)

RUN = _object(
    run_id=TEXT, name=TEXT, owner=TEXT, owner_uid=WHOLE, kind=_words(("worker", "command")),
    state=_words(State), want=_words(Want), outcome=_or_null(_words(Outcome)),
    cause=_or_null({**_object(kind=TEXT)}),
    exit_code=_or_null({"type": "integer", "minimum": 0, "maximum": 255}), signal=_or_null(WHOLE),
    pid=_or_null(WHOLE), attempt=WHOLE, slots=_list(WHOLE), priority=WHOLE,
    labels={"type": "object", "additionalProperties": TEXT}, digest=TEXT, duplicate=FLAG,
    created_at=NUMBER, dispatched_at=_or_null(NUMBER), started_at=_or_null(NUMBER),
    finished_at=_or_null(NUMBER), last_heartbeat_at=_or_null(NUMBER), run_dir=TEXT,
    command=_list(TEXT), progress=OBJECT, metrics=OBJECT, rev=WHOLE,
)  # fmt: skip

_RUN: Json = {"$ref": "#/components/schemas/Run"}

RESULTS: Mapping[str, Json] = {
    "Run": RUN,
    "Hello": _object(
        protocol=WHOLE, version=TEXT, epoch=TEXT, last_seq=WHOLE, ready=FLAG, user=TEXT, uid=WHOLE,
        is_admin=FLAG,
    ),
    "Health": _object(
        pid=WHOLE, version=TEXT, protocol=WHOLE, ready=FLAG, draining=FLAG, uptime_s=NUMBER, socket=TEXT,
        state_dir=TEXT, epoch=TEXT, last_seq=WHOLE, counts=OBJECT, cpus=SLOTS, gpus=SLOTS,
        containment=OBJECT, wal=_or_null(OBJECT), writes=OBJECT, watchers=WHOLE,
        quarantine=_list(OBJECT), warnings=_list(TEXT),
    ),
    "Inspection": _object(
        version=TEXT, socket=TEXT, state_dir=TEXT, registry=OBJECT, live=_list(OBJECT), modes=_list(OBJECT),
        directories=OBJECT, disk=OBJECT, at=NUMBER, fixed=_list(TEXT),
    ),
    "BackedUp": _object(path=TEXT, bytes=WHOLE, seconds=NUMBER, runs=WHOLE, last_seq=WHOLE, epoch=TEXT),
    "Imported": _object(
        path=TEXT, dry_run=FLAG, rows=WHOLE, imported=WHOLE, known=WHOLE, skipped=WHOLE, outcomes=OBJECT,
        run_ids=_list(TEXT), unknown_columns=_list(TEXT), missing_columns=_list(TEXT), notes=_list(OBJECT),
    ),
    "Reexec": _object(pid=WHOLE, version=TEXT, to_version=TEXT),
    "Pruned": _object(
        dry_run=FLAG, runs=_list(_object(run_id=TEXT, bytes=WHOLE, why=TEXT)),
        kept=_list(_object(run_id=TEXT, why=TEXT)), count=WHOLE, bytes=WHOLE, complete=FLAG,
    ),
    "OpenRPC": _object(openrpc=TEXT, info=OBJECT, methods=_list(OBJECT), components=OBJECT),
    "RunPage": _object(runs=_list(_RUN), cursor=_or_null(TEXT)),
    "WatchStart": _object(
        subscription=WHOLE, epoch=TEXT, cursor=WHOLE, last_seq=WHOLE, pruned_seq=WHOLE, runs=_list(_RUN),
        complete=FLAG,
    ),
    "Unwatched": _object(subscription=WHOLE, cursor=WHOLE),
    "LogChunk": _object(
        run_id=TEXT, attempt=WHOLE, stream=_words(("stdout", "stderr")), offset=WHOLE, cursor=WHOLE,
        data=TEXT, encoding=_words(("utf-8", "base64")), size=WHOLE, eof=FLAG, gap=_or_null(OBJECT),
    ),
    "TelemetryPage": _object(
        run_id=TEXT, attempt=WHOLE, cursor=WHOLE, records=_list(_object(seq=WHOLE)), eof=FLAG,
        unreadable=WHOLE,
    ),
    "Explanation": _object(
        run_id=TEXT, reason=_or_null(TEXT), facts=_list(OBJECT), changes=_list(_list(OBJECT))
    ),
    "Workers": _object(workers=_list(_object(kind=TEXT, python=TEXT))),
    "Registered": _object(
        accepted_version=WHOLE, session_token=TEXT, order=_words(("start", "attach", "stop")),
        want=_words(Want), pause_mode=_or_null(TEXT), grace_s=NUMBER, stop=_or_null(OBJECT),
    ),
    "FactsAccepted": _object(accepted=WHOLE, rejected=_list(TEXT)),
    "Nothing": OBJECT,
}  # fmt: skip
