"""rpc.discover: the protocol as one OpenRPC document, generated from METHODS and the parameter classes."""

from functools import cache

import msgspec

from mosaicd import __version__
from mosaicd.protocol import PROTOCOL_VERSION, Json
from mosaicd.protocol.errors import ERRORS
from mosaicd.protocol.messages import NoParams
from mosaicd.protocol.methods import METHODS, NOTIFICATIONS, Method
from mosaicd.rpc.caller import Caller
from mosaicd.rpc.context import Services
from mosaicd.rpc.results import RESULTS
from mosaicd.rpc.validate import dataclass_of

OPENRPC = "1.3.2"
_REF = "#/components/schemas/{name}"


async def handle(services: Services, caller: Caller, params: NoParams) -> Json:
    """Return the document."""
    return document()


@cache
def document() -> Json:
    """Return the OpenRPC document; the caller must not change it."""
    classes = sorted({dataclass_of(row.params) for row in METHODS.values()}, key=lambda cls: cls.__name__)
    _, schemas = msgspec.json.schema_components(classes, ref_template=_REF)
    for schema in schemas.values():
        schema["additionalProperties"] = False
    return {
        "openrpc": OPENRPC,
        "info": {
            "title": "mosaicd",
            "version": __version__,
            "description": f"Protocol {PROTOCOL_VERSION}: JSON-RPC 2.0 lines on a Unix stream socket.",
        },
        "methods": [_method(row, schemas[row.params.__name__]) for row in METHODS.values()],
        "components": {"schemas": {**schemas, **RESULTS}, "errors": _errors()},
        "x-notifications": [{"name": name, "summary": text} for name, text in NOTIFICATIONS.items()],
    }


def _method(row: Method, schema: Json) -> Json:
    required = schema.get("required", [])
    return {
        "name": row.name,
        "summary": row.summary,
        "description": (row.params.__doc__ or "").strip(),
        "paramStructure": "by-name",
        "params": [
            {"name": name, "required": name in required, "schema": field}
            for name, field in sorted(schema["properties"].items(), key=lambda item: item[0] not in required)
        ],
        "result": {"name": row.result, "schema": {"$ref": _REF.format(name=row.result)}},
        "errors": [{"$ref": f"#/components/errors/{cls.name}"} for cls in ERRORS.values()],
        "x-role": row.role,
        "x-streams": row.streams,
        "x-since": row.since,
    }


def _errors() -> Json:
    return {
        cls.name: {"code": code, "message": cls().message, "data": {"name": cls.name}}
        for code, cls in ERRORS.items()
    }
