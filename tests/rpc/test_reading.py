"""hello, health, get, list, wait, explain and discover."""

import asyncio
import json
from dataclasses import fields
from typing import Any

import jsonschema
import pytest

from mosaicd.core.fsm import Event, Kind
from mosaicd.protocol.methods import METHODS
from mosaicd.rpc.validate import dataclass_of
from mosaicd.rpc.verbs.discover import document
from tests.harness.waiting import wait_in_loop
from tests.rpc.serving import AT, Peer, Serving


async def test_hello_exchanges_versions(serving: Serving, peer: Peer) -> None:
    """The reply names protocol, epoch and caller; a version that is not spoken is refused."""
    reply = await peer.call("daemon.hello", {"proto_version": 1, "client": "test"})
    assert (reply["protocol"], reply["epoch"]) == (1, serving.registry.epoch)
    assert (await peer.refused("daemon.hello", {"proto_version": 2}))["data"]["protocol"] == 1


async def test_health_counts_runs(serving: Serving, peer: Peer) -> None:
    """Counts by state, slots, where it listens, and what is set aside."""
    await serving.add()
    await serving.end(await serving.execute(await serving.add()))
    serving.services.quarantine["x"] = "odd"
    health = await peer.call("daemon.health")
    assert health["counts"] | {"INIT": 1, "TERM": 1} == health["counts"]
    slots = serving.settings.cpus.slots
    assert (health["socket"], health["cpus"]) == (
        str(serving.settings.socket),
        {"total": slots, "free": slots},
    )
    assert health["quarantine"] == [{"run_id": "x", "why": "odd"}]


async def test_an_ended_run_is_still_there(serving: Serving, peer: Peer) -> None:
    """run.get of a run in TERM has its outcome and last values."""
    run = await serving.execute(await serving.add())
    serving.advance(run, steps=7, metrics={"loss": 0.5})
    await serving.end(run)
    shown = await peer.call("run.get", {"run_id": run.run_id})
    assert (shown["state"], shown["outcome"], shown["exit_code"]) == ("TERM", "succeeded", 0)
    assert (shown["progress"]["steps"], shown["metrics"]) == (7, {"loss": 0.5})


async def test_list_pages_through_all(serving: Serving, peer: Peer) -> None:
    """Every run once, oldest first, ended ones too, over as many pages as it takes."""
    runs = [await serving.add() for _ in range(25)]
    await serving.end(await serving.execute(runs[3]))
    seen, cursor = [], None
    while True:
        page = await peer.call("run.list", {"limit": 7} | ({"cursor": cursor} if cursor else {}))
        seen += [run["run_id"] for run in page["runs"]]
        cursor = page["cursor"]
        if cursor is None:
            break
    assert seen == [run.run_id for run in runs]
    ended = await peer.call("run.list", {"live": False})
    assert [run["run_id"] for run in ended["runs"]] == [runs[3].run_id]


async def test_names_are_found_by_pattern(serving: Serving, peer: Peer) -> None:
    """`*` and `?` stand for any letters and for one; everything else, brackets too, for itself."""
    names = ("sweep-1", "sweep-22", "other", "odd[a]", "odda")
    for name in names:
        await serving.add(name=name)
    for pattern, found in {
        "sweep-*": ["sweep-1", "sweep-22"], "sweep-?": ["sweep-1"], "*[a]*": ["odd[a]"], "odd[a]": ["odd[a]"],
        "*": list(names), "nothing*": [], "Sweep-*": [],
    }.items():  # fmt: skip
        page = await peer.call("run.list", {"name": pattern})
        assert [run["name"] for run in page["runs"]] == found, pattern


async def test_a_page_of_large_runs_stays_below_the_limit(serving: Serving, peer: Peer) -> None:
    """Runs with huge commands make a page shorter, never a reply too large."""
    runs = [await serving.add(command=("\x01" * 50_000,)) for _ in range(9)]
    seen, cursor, pages = [], None, 0
    while pages == 0 or cursor is not None:
        page = await peer.call("run.list", {"cursor": cursor} if cursor else {})
        seen += [run["run_id"] for run in page["runs"]]
        cursor, pages = page["cursor"], pages + 1
    assert seen == [run.run_id for run in runs] and pages > 3


async def test_bad_filters_are_named(peer: Peer) -> None:
    """Words that mean nothing are refused with their path."""
    error = await peer.refused("run.list", {"state": ["EXEC", "flying"]})
    assert error["data"]["errors"][0]["path"] == "state[1]"
    assert (await peer.refused("run.list", {"limit": 0}))["data"]["errors"][0]["path"] == "limit"


# --- wait ----------------------------------------------------------------------------------------------


async def test_wait_answers_at_the_end(serving: Serving, peer: Peer) -> None:
    """Without states it waits for TERM, and answers at once for a run that has ended."""
    run = await serving.execute(await serving.add())
    number = peer.ask("run.wait", {"run_id": run.run_id})
    await wait_in_loop(lambda: serving.broadcaster._followers, "the request waits")
    await serving.end(run)
    assert (await peer.reply(number))["result"]["outcome"] == "succeeded"
    assert (await peer.call("run.wait", {"run_id": run.run_id}))["state"] == "TERM"
    assert not serving.broadcaster._followers


async def test_wait_sees_a_state_that_is_passed_through(serving: Serving, peer: Peer) -> None:
    """EXEC counts as reached although the run has already ended."""
    run = await serving.add()
    number = peer.ask("run.wait", {"run_id": run.run_id, "states": ["exec"]})
    await wait_in_loop(lambda: serving.broadcaster._followers, "the request waits")
    await asyncio.gather(serving.execute(run), serving.end(run))
    assert (await peer.reply(number))["result"]["run_id"] == run.run_id


async def test_wait_gives_up(serving: Serving, peer: Peer) -> None:
    """After timeout_s with the state it has; at once for a state that an ended run cannot reach."""
    run = await serving.add()
    error = await peer.refused("run.wait", {"run_id": run.run_id, "timeout_s": 0})
    assert (error["data"]["name"], error["data"]["state"]) == ("timed_out", "INIT")
    await serving.end(await serving.execute(run))
    error = await peer.refused("run.wait", {"run_id": run.run_id, "states": ["RDY"]})
    assert (error["data"]["name"], error["data"]["outcome"]) == ("conflict", "succeeded")


@pytest.mark.parametrize(
    ("params", "path"),
    [({"states": ["soon"]}, "states[0]"), ({"states": []}, "states"), ({"timeout_s": -1}, "timeout_s")],
)
async def test_a_wait_for_nothing_is_refused(
    params: dict[str, Any], path: str, serving: Serving, peer: Peer
) -> None:
    """Unknown states, no states and negative times are faults."""
    run = await serving.add()
    error = await peer.refused("run.wait", {"run_id": run.run_id, **params})
    assert error["data"]["errors"][0]["path"] == path


async def test_explain_of_a_run_that_does_not_wait(serving: Serving, peer: Peer) -> None:
    """No facts: nothing keeps it."""
    run = await serving.execute(await serving.add())
    explained = await peer.call("run.explain", {"run_id": run.run_id})
    assert explained == {"run_id": run.run_id, "reason": None, "facts": [], "changes": []}


# --- the document --------------------------------------------------------------------------------------


def validator(name: str) -> jsonschema.Draft202012Validator:
    components = document()["components"]
    return jsonschema.Draft202012Validator({"$ref": f"#/components/schemas/{name}", "components": components})


async def test_discover_describes_every_method(peer: Peer) -> None:
    """The OpenRPC document has each row of METHODS with its params and result; every reference resolves."""
    told = await peer.call("rpc.discover")
    assert told == json.loads(json.dumps(document()))
    assert told["openrpc"].startswith("1.") and told["info"].keys() >= {"title", "version"}
    assert [method["name"] for method in told["methods"]] == list(METHODS)
    components = told["components"]
    for method in told["methods"]:
        assert method.keys() >= {"name", "params", "result", "summary", "errors", "paramStructure"}
        needed = [param["required"] for param in method["params"]]
        assert needed == sorted(needed, reverse=True)  # OpenRPC: required ones come first
        for reference in [method["result"]["schema"]["$ref"], *(error["$ref"] for error in method["errors"])]:
            place: Any = told
            for part in reference.removeprefix("#/").split("/"):
                place = place[part]
        names = {field.name for field in fields(dataclass_of(METHODS[method["name"]].params))}
        assert {param["name"] for param in method["params"]} == names
    for schema in components["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
    assert all(error.keys() == {"code", "message", "data"} for error in components["errors"].values())


async def test_params_that_the_document_allows_are_taken(peer: Peer) -> None:
    """Schema and decoder agree: what one refuses, so does the other."""
    for params in (
        {},
        {"limit": 1},
        {"limit": "x"},
        {"limit": 1.5},
        {"label": {"a": 1}},
        {"nope": 1},
        {"live": None},
    ):
        reply = await peer.reply(peer.ask("run.list", params))
        refused = reply.get("error", {}).get("code") == -32602
        assert refused != validator("ListRuns").is_valid(params), params


async def test_replies_are_what_the_document_says(serving: Serving, peer: Peer) -> None:
    """Every reading verb's reply is valid against its own schema."""
    run = await serving.execute(await serving.add(labels={"a": "b"}))
    waiting = await serving.add()
    await serving.registry.record(run.run_id, Event(Kind.STOP_REQUESTED, AT, "ada", {}))
    reference = {"run_id": run.run_id}
    calls: dict[str, dict[str, Any]] = {
        "daemon.hello": {}, "daemon.health": {}, "rpc.discover": {}, "run.get": reference, "run.list": {},
        "run.logs": reference, "run.telemetry": reference, "run.watch": {},
        "run.explain": {"run_id": waiting.run_id}, "run.wait": {**reference, "states": ["EXEC"]},
    }  # fmt: skip
    for method, params in calls.items():
        validator(METHODS[method].result).validate(await peer.call(method, params))
    watch = await peer.call("run.watch")
    validator("Unwatched").validate(await peer.call("run.unwatch", {"subscription": watch["subscription"]}))
    await serving.end(run)
    validator("Run").validate(await peer.call("run.get", reference))
