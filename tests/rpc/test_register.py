"""worker.register: who may, and that its answer is the newest word."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from mosaicd.core.fsm import Event, Kind
from mosaicd.core.run import Run
from mosaicd.protocol.errors import Unavailable
from tests.rpc.conftest import Start
from tests.rpc.serving import AT, Serving


async def registration(serving: Serving) -> dict[str, Any]:
    """What the shim of a run that works says when it comes."""
    run_id = (await serving.execute(await serving.add())).run_id
    return {
        "run_id": run_id, "attempt": 1, "worker_id": "w", "worker_kind": "command", "proto_version": 1,
        "schema_id": "mosaic.telemetry", "schema_version": 1, "supports_pause": False,
        "supports_checkpoint": False, "shim_pid": 1, "shim_start_ticks": 1,
        "status": {"spawned": {"pid": 2, "start_ticks": 2}},
        "secret": serving.auth.launch_secret(run_id, 1, "n" * 8),
    }  # fmt: skip


async def test_register_needs_the_attempts_secret(start: Start) -> None:
    """Only the launch secret of the present attempt registers a shim."""
    serving = await start()
    params = await registration(serving)
    peer = await serving.peer()
    wrong = serving.auth.launch_secret(params["run_id"], 2, "n" * 8)
    for said in (wrong, "", params["secret"][:-1], "é"):
        error = await peer.refused("worker.register", {**params, "secret": said})
        assert error["data"]["name"] == "unauthenticated"
    reply = await peer.call("worker.register", params)
    serving.auth.check_token(params["run_id"], reply["session_token"])


@pytest.mark.parametrize(
    ("kind", "data", "answer"),
    [
        (Kind.PAUSE_REQUESTED, {"mode": "freeze"}, ("attach", "pause", "freeze")),
        (Kind.STOP_REQUESTED, {}, ("stop", "stop", None)),
    ],
)
async def test_what_is_recorded_before_the_answer_is_in_it(
    start: Start, monkeypatch: pytest.MonkeyPatch, kind: Kind, data: dict[str, str], answer: tuple[str, ...]
) -> None:
    """A request between the commit of the register and its answer is in the answer."""
    serving = await start()
    params = await registration(serving)
    record_if = serving.registry.record_if

    async def overtaken(run_id: str, decide: Callable[[Run], Sequence[Event]], **options: bool) -> Run:
        monkeypatch.setattr(serving.registry, "record_if", record_if)
        run = await record_if(run_id, decide, **options)
        await serving.registry.record(run_id, Event(kind, AT, "ada", data))
        return run

    monkeypatch.setattr(serving.registry, "record_if", overtaken)
    reply = await (await serving.peer()).call("worker.register", params)
    assert (reply["order"], reply["want"], reply["pause_mode"]) == answer


async def test_a_run_that_ends_before_the_answer_has_no_place_for_a_shim(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shim is told so, and gets no token."""
    serving = await start()
    params = await registration(serving)
    record_if = serving.registry.record_if

    async def ended(run_id: str, decide: Callable[[Run], Sequence[Event]], **options: bool) -> Run:
        monkeypatch.setattr(serving.registry, "record_if", record_if)
        return await serving.end(await record_if(run_id, decide, **options))

    monkeypatch.setattr(serving.registry, "record_if", ended)
    error = await (await serving.peer()).refused("worker.register", params)
    assert error["data"]["name"] == "not_found"


async def test_a_pause_that_a_lost_registry_knew_outlives_a_full_disk(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first register of a run that was made again cannot be recorded: the second one is as good."""
    serving = await start()
    params = await registration(serving)
    params["status"] |= {"started_at": AT, "frozen": True, "frozen_at": AT + 1, "paused_mode": "freeze"}
    serving.services.unconfirmed.add(params["run_id"])
    record_if = serving.registry.record_if

    async def full(run_id: str, decide: Callable[[Run], Sequence[Event]], **options: bool) -> Run:
        monkeypatch.setattr(serving.registry, "record_if", record_if)
        assert decide(serving.registry.live[run_id])
        raise Unavailable("the disk is full")

    monkeypatch.setattr(serving.registry, "record_if", full)
    peer = await serving.peer()
    assert (await peer.refused("worker.register", params))["data"]["name"] == "unavailable"
    assert (await peer.call("worker.register", params))["want"] == "pause"
    run = serving.registry.live[params["run_id"]]
    assert (run.state, run.want) == ("PAUSE", "pause")
