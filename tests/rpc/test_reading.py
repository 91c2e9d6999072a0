"""The reading methods: hello, health, get, list, wait, explain and discover."""

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
    """The reply has protocol and epoch; an unknown protocol version is refused."""
    reply = await peer.call("daemon.hello", {"proto_version": 1, "client": "test"})
    assert (reply["protocol"], reply["epoch"]) == (1, serving.registry.epoch)
    assert (await peer.call_refused("daemon.hello", {"proto_version": 2}))["data"]["protocol"] == 1


async def test_health_has_counts_slots_socket_and_quarantine(serving: Serving, peer: Peer) -> None:
    """Health has the counts by state, the free CPUs, the socket and the quarantined rows."""
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


async def test_get_returns_an_ended_run(serving: Serving, peer: Peer) -> None:
    """run.get of a run in TERM has its outcome and last values."""
    run = await serving.execute(await serving.add())
    serving.advance(run, steps=7, metrics={"loss": 0.5})
    await serving.end(run)
    shown = await peer.call("run.get", {"run_id": run.run_id})
    assert (shown["state"], shown["outcome"], shown["exit_code"]) == ("TERM", "succeeded", 0)
    assert (shown["progress"]["steps"], shown["metrics"]) == (7, {"loss": 0.5})


async def test_list_returns_every_run_once(serving: Serving, peer: Peer) -> None:
    """The pages together have every run once, oldest first, ended runs included."""
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


async def test_list_filters_names_by_pattern(serving: Serving, peer: Peer) -> None:
    """`*` matches any text, `?` one character; other characters, also brackets, match themselves."""
    names = ("sweep-1", "sweep-22", "other", "odd[a]", "odda")
    for name in names:
        await serving.add(name=name)
    for pattern, expected in {
        "sweep-*": ["sweep-1", "sweep-22"], "sweep-?": ["sweep-1"], "*[a]*": ["odd[a]"], "odd[a]": ["odd[a]"],
        "*": list(names), "nothing*": [], "Sweep-*": [],
    }.items():  # fmt: skip
        page = await peer.call("run.list", {"name": pattern})
        assert [run["name"] for run in page["runs"]] == expected, pattern


async def test_a_page_of_large_runs_stays_below_the_limit(serving: Serving, peer: Peer) -> None:
    """Runs with huge commands make pages shorter, so no reply exceeds the limit."""
    runs = [await serving.add(command=("\x01" * 50_000,)) for _ in range(9)]
    seen, cursor, pages = [], None, 0
    while pages == 0 or cursor is not None:
        page = await peer.call("run.list", {"cursor": cursor} if cursor else {})
        seen += [run["run_id"] for run in page["runs"]]
        cursor, pages = page["cursor"], pages + 1
    assert seen == [run.run_id for run in runs] and pages > 3


async def test_invalid_filters_are_refused_with_their_path(peer: Peer) -> None:
    """An unknown state and a limit of 0 are faults."""
    error = await peer.call_refused("run.list", {"state": ["EXEC", "flying"]})
    assert error["data"]["errors"][0]["path"] == "state[1]"
    assert (await peer.call_refused("run.list", {"limit": 0}))["data"]["errors"][0]["path"] == "limit"


# --- wait ----------------------------------------------------------------------------------------------


async def test_wait_returns_at_the_end_of_the_run(serving: Serving, peer: Peer) -> None:
    """Without states, wait returns in TERM, and immediately for an ended run."""
    run = await serving.execute(await serving.add())
    number = peer.send_request("run.wait", {"run_id": run.run_id})
    await wait_in_loop(lambda: serving.broadcaster._followers, "the request waits")
    await serving.end(run)
    assert (await peer.reply(number))["result"]["outcome"] == "succeeded"
    assert (await peer.call("run.wait", {"run_id": run.run_id}))["state"] == "TERM"
    assert not serving.broadcaster._followers


async def test_wait_returns_for_a_state_that_has_passed(serving: Serving, peer: Peer) -> None:
    """EXEC counts as reached although the run has ended meanwhile."""
    run = await serving.add()
    number = peer.send_request("run.wait", {"run_id": run.run_id, "states": ["exec"]})
    await wait_in_loop(lambda: serving.broadcaster._followers, "the request waits")
    await asyncio.gather(serving.execute(run), serving.end(run))
    assert (await peer.reply(number))["result"]["run_id"] == run.run_id


async def test_wait_fails_after_its_timeout_or_for_an_impossible_state(serving: Serving, peer: Peer) -> None:
    """timed_out has the present state; a state that an ended run cannot reach is a conflict immediately."""
    run = await serving.add()
    error = await peer.call_refused("run.wait", {"run_id": run.run_id, "timeout_s": 0})
    assert (error["data"]["name"], error["data"]["state"]) == ("timed_out", "INIT")
    await serving.end(await serving.execute(run))
    error = await peer.call_refused("run.wait", {"run_id": run.run_id, "states": ["RDY"]})
    assert (error["data"]["name"], error["data"]["outcome"]) == ("conflict", "succeeded")


@pytest.mark.parametrize(
    ("params", "path"),
    [({"states": ["soon"]}, "states[0]"), ({"states": []}, "states"), ({"timeout_s": -1}, "timeout_s")],
)
async def test_invalid_parameters_of_wait_are_refused(
    params: dict[str, Any], path: str, serving: Serving, peer: Peer
) -> None:
    """Unknown states, an empty list of states and negative timeouts are faults."""
    run = await serving.add()
    error = await peer.call_refused("run.wait", {"run_id": run.run_id, **params})
    assert error["data"]["errors"][0]["path"] == path


async def test_explain_of_a_run_that_does_not_wait(serving: Serving, peer: Peer) -> None:
    """The explanation of a run that does not wait is empty."""
    run = await serving.execute(await serving.add())
    explained = await peer.call("run.explain", {"run_id": run.run_id})
    assert explained == {"run_id": run.run_id, "reason": None, "facts": [], "changes": []}


# --- the document --------------------------------------------------------------------------------------


def validator(name: str) -> jsonschema.Draft202012Validator:
    components = document()["components"]
    return jsonschema.Draft202012Validator({"$ref": f"#/components/schemas/{name}", "components": components})


async def test_discover_describes_every_method(peer: Peer) -> None:
    """The OpenRPC document has each method with its params and result, and every reference resolves."""
    described = await peer.call("rpc.discover")
    assert described == json.loads(json.dumps(document()))
    assert described["openrpc"].startswith("1.") and described["info"].keys() >= {"title", "version"}
    assert [method["name"] for method in described["methods"]] == list(METHODS)
    components = described["components"]
    for method in described["methods"]:
        assert method.keys() >= {"name", "params", "result", "summary", "errors", "paramStructure"}
        is_required = [param["required"] for param in method["params"]]
        assert is_required == sorted(is_required, reverse=True)  # OpenRPC: required params come first
        for reference in [method["result"]["schema"]["$ref"], *(error["$ref"] for error in method["errors"])]:
            place: Any = described
            for part in reference.removeprefix("#/").split("/"):
                place = place[part]
        names = {field.name for field in fields(dataclass_of(METHODS[method["name"]].params))}
        assert {param["name"] for param in method["params"]} == names
    for schema in components["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
    assert all(error.keys() == {"code", "message", "data"} for error in components["errors"].values())


async def test_schema_and_decoder_accept_the_same_params(peer: Peer) -> None:
    """The daemon refuses exactly the params that the schema of the document refuses."""
    for params in (
        {},
        {"limit": 1},
        {"limit": "x"},
        {"limit": 1.5},
        {"label": {"a": 1}},
        {"nope": 1},
        {"live": None},
    ):
        reply = await peer.reply(peer.send_request("run.list", params))
        refused = reply.get("error", {}).get("code") == -32602
        assert refused != validator("ListRuns").is_valid(params), params


async def test_replies_match_their_schemas(serving: Serving, peer: Peer) -> None:
    """The reply of every reading method is valid against its schema."""
    run = await serving.execute(await serving.add(labels={"a": "b"}))
    waiting = await serving.add()
    await serving.registry.record(run.run_id, Event(Kind.STOP_REQUESTED, AT, "ada", {}))
    reference = {"run_id": run.run_id}
    calls: dict[str, dict[str, Any]] = {
        "daemon.hello": {}, "daemon.health": {}, "rpc.discover": {}, "run.get": reference, "run.list": {},
        "run.leftovers": reference, "run.logs": reference, "run.telemetry": reference, "run.watch": {},
        "run.explain": {"run_id": waiting.run_id}, "run.wait": {**reference, "states": ["EXEC"]},
    }  # fmt: skip
    for method, params in calls.items():
        validator(METHODS[method].result).validate(await peer.call(method, params))
    watch = await peer.call("run.watch")
    validator("Unwatched").validate(await peer.call("run.unwatch", {"subscription": watch["subscription"]}))
    await serving.end(run)
    validator("Run").validate(await peer.call("run.get", reference))
