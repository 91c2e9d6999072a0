"""The result of each method as JSON Schema, for the OpenRPC document.

A schema has the fields that a caller may rely on; a reply may have more.  The keys of RESULTS are the result
names in METHODS.
"""

from collections.abc import Iterable, Mapping

from mosaicd.protocol import Json
from mosaicd.protocol.states import Outcome, State, Want

TEXT: Json = {"type": "string"}
INT: Json = {"type": "integer"}
NUMBER: Json = {"type": "number"}
BOOL: Json = {"type": "boolean"}
OBJECT: Json = {"type": "object"}


def _or_null(schema: Json) -> Json:
    return {"anyOf": [schema, {"type": "null"}]}


def _list(schema: Json) -> Json:
    return {"type": "array", "items": schema}


def _object(**properties: Json) -> Json:
    """Return the schema of an object that has all of `properties` and may have more."""
    return {"type": "object", "properties": properties, "required": list(properties)}


def _enum(values: Iterable[str]) -> Json:
    return {"type": "string", "enum": [str(value) for value in values]}


SLOTS = _object(total=INT, free=INT)

RUN = _object(
    run_id=TEXT, name=TEXT, owner=TEXT, owner_uid=INT, kind=_enum(("worker", "command")),
    state=_enum(State), want=_enum(Want), outcome=_or_null(_enum(Outcome)),
    cause=_or_null({**_object(kind=TEXT)}),
    exit_code=_or_null({"type": "integer", "minimum": 0, "maximum": 255}), signal=_or_null(INT),
    left_processes=_or_null(INT), pid=_or_null(INT), attempt=INT, slots=_list(INT), priority=INT,
    labels={"type": "object", "additionalProperties": TEXT}, digest=TEXT, duplicate=BOOL,
    created_at=NUMBER, dispatched_at=_or_null(NUMBER), started_at=_or_null(NUMBER),
    finished_at=_or_null(NUMBER), last_heartbeat_at=_or_null(NUMBER), run_dir=TEXT,
    command=_list(TEXT), progress=OBJECT, metrics=OBJECT, rev=INT,
)  # fmt: skip

_REMOVED = _object(files=INT, bytes=INT, failed=INT)

_RUN: Json = {"$ref": "#/components/schemas/Run"}

RESULTS: Mapping[str, Json] = {
    "Run": RUN,
    "Hello": _object(
        protocol=INT, version=TEXT, epoch=TEXT, last_seq=INT, ready=BOOL, user=TEXT, uid=INT,
        is_admin=BOOL,
    ),
    "Health": _object(
        pid=INT, version=TEXT, protocol=INT, ready=BOOL, draining=BOOL, uptime_s=NUMBER, socket=TEXT,
        state_dir=TEXT, epoch=TEXT, last_seq=INT, counts=OBJECT, cpus=SLOTS, gpus=SLOTS,
        containment=OBJECT, wal=_or_null(OBJECT), writes=OBJECT, watchers=INT,
        quarantine=_list(OBJECT), warnings=_list(TEXT),
    ),
    "Inspection": _object(
        version=TEXT, socket=TEXT, state_dir=TEXT, registry=OBJECT, live=_list(OBJECT), modes=_list(OBJECT),
        directories=OBJECT, disk=OBJECT, at=NUMBER, fixed=_list(TEXT),
    ),
    "BackedUp": _object(path=TEXT, bytes=INT, seconds=NUMBER, runs=INT, last_seq=INT, epoch=TEXT),
    "Imported": _object(
        path=TEXT, dry_run=BOOL, rows=INT, imported=INT, known=INT, skipped=INT, outcomes=OBJECT,
        run_ids=_list(TEXT), unknown_columns=_list(TEXT), missing_columns=_list(TEXT), notes=_list(OBJECT),
    ),
    "Upload": _object(upload=TEXT, chunk_bytes=INT, limit_bytes=INT),
    "Uploaded": _object(size=INT),
    "Reexec": _object(pid=INT, version=TEXT, to_version=TEXT),
    "Pruned": _object(
        dry_run=BOOL, runs=_list(_object(run_id=TEXT, bytes=INT, why=TEXT)),
        kept=_list(_object(run_id=TEXT, why=TEXT)), count=INT, bytes=INT, complete=BOOL,
    ),
    "OpenRPC": _object(openrpc=TEXT, info=OBJECT, methods=_list(OBJECT), components=OBJECT),
    "RunPage": _object(runs=_list(_RUN), cursor=_or_null(TEXT)),
    "WatchStart": _object(
        subscription=INT, epoch=TEXT, cursor=INT, last_seq=INT, pruned_seq=INT, runs=_list(_RUN),
        complete=BOOL,
    ),
    "Environment": _object(
        run_id=TEXT, variables={"type": "object", "additionalProperties": TEXT}, secrets=_list(TEXT)
    ),
    "Unwatched": _object(subscription=INT, cursor=INT),
    "LogChunk": _object(
        run_id=TEXT, attempt=INT, stream=_enum(("stdout", "stderr")), offset=INT, cursor=INT,
        data=TEXT, encoding=_enum(("utf-8", "base64")), size=INT, eof=BOOL, gap=_or_null(OBJECT),
    ),
    "TelemetryPage": _object(
        run_id=TEXT, attempt=INT, cursor=INT, records=_list(_object(seq=INT)), eof=BOOL,
        unreadable=INT,
    ),
    "Leftovers": _object(
        run_id=TEXT, attempt=INT, processes=_list(_object(pid=_or_null(INT), command=_or_null(TEXT))),
        temporary=_REMOVED, shared_memory=_list(_object(path=_or_null(TEXT), bytes=_or_null(INT))),
        shared_memory_files=INT, shared_memory_bytes=INT, removed_shared_memory=_REMOVED,
        at=_or_null(NUMBER),
    ),
    "Explanation": _object(
        run_id=TEXT, reason=_or_null(TEXT), facts=_list(OBJECT), changes=_list(_list(OBJECT))
    ),
    "Workers": _object(workers=_list(_object(kind=TEXT, python=TEXT))),
    "Registered": _object(
        accepted_version=INT, session_token=TEXT, order=_enum(("start", "attach", "stop")),
        want=_enum(Want), pause_mode=_or_null(TEXT), grace_s=NUMBER, stop=_or_null(OBJECT),
    ),
    "FactsAccepted": _object(accepted=INT, rejected=_list(TEXT)),
    "Nothing": OBJECT,
}  # fmt: skip
