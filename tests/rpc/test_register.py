"""worker.register: its authentication, and a reply that is up to date."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from mosaicd.core.fsm import Event, Kind
from mosaicd.core.run import Run
from mosaicd.protocol.errors import Unavailable
from tests.rpc.conftest import Start
from tests.rpc.serving import AT, Serving


async def registration_params(serving: Serving) -> dict[str, Any]:
    """Return the params with which the shim of a run in EXEC registers."""
    run_id = (await serving.execute(await serving.add())).run_id
    return {
        "run_id": run_id, "attempt": 1, "worker_id": "w", "worker_kind": "command", "proto_version": 1,
        "schema_id": "mosaic.telemetry", "schema_version": 1, "supports_pause": False,
        "supports_checkpoint": False, "shim_pid": 1, "shim_start_ticks": 1,
        "status": {"spawned": {"pid": 2, "start_ticks": 2}},
        "secret": serving.auth.launch_secret(run_id, 1, "n" * 8),
    }  # fmt: skip


async def test_register_needs_the_launch_secret_of_the_attempt(start: Start) -> None:
    """Any other secret is refused as unauthenticated."""
    serving = await start()
    params = await registration_params(serving)
    peer = await serving.peer()
    wrong = serving.auth.launch_secret(params["run_id"], 2, "n" * 8)
    for secret in (wrong, "", params["secret"][:-1], "é"):
        error = await peer.call_refused("worker.register", {**params, "secret": secret})
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
async def test_a_request_before_the_reply_to_a_register_is_in_the_reply(
    start: Start, monkeypatch: pytest.MonkeyPatch, kind: Kind, data: dict[str, str], answer: tuple[str, ...]
) -> None:
    """A request between the commit of the register and the reply changes order and want of the reply."""
    serving = await start()
    params = await registration_params(serving)
    record_if = serving.registry.record_if

    async def record_with_request(
        run_id: str, decide: Callable[[Run], Sequence[Event]], **options: bool
    ) -> Run:
        monkeypatch.setattr(serving.registry, "record_if", record_if)
        run = await record_if(run_id, decide, **options)
        await serving.registry.record(run_id, Event(kind, AT, "ada", data))
        return run

    monkeypatch.setattr(serving.registry, "record_if", record_with_request)
    reply = await (await serving.peer()).call("worker.register", params)
    assert (reply["order"], reply["want"], reply["pause_mode"]) == answer


async def test_a_register_of_a_run_that_ends_meanwhile_is_refused(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shim gets not_found and no session token."""
    serving = await start()
    params = await registration_params(serving)
    record_if = serving.registry.record_if

    async def ended(run_id: str, decide: Callable[[Run], Sequence[Event]], **options: bool) -> Run:
        monkeypatch.setattr(serving.registry, "record_if", record_if)
        return await serving.end(await record_if(run_id, decide, **options))

    monkeypatch.setattr(serving.registry, "record_if", ended)
    error = await (await serving.peer()).call_refused("worker.register", params)
    assert error["data"]["name"] == "not_found"


async def test_a_pause_of_a_recovered_run_survives_a_full_disk(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the first register of a recovered run cannot be recorded, the second restores its pause."""
    serving = await start()
    params = await registration_params(serving)
    params["status"] |= {"started_at": AT, "frozen": True, "frozen_at": AT + 1, "paused_mode": "freeze"}
    serving.services.unconfirmed.add(params["run_id"])
    record_if = serving.registry.record_if

    async def full(run_id: str, decide: Callable[[Run], Sequence[Event]], **options: bool) -> Run:
        monkeypatch.setattr(serving.registry, "record_if", record_if)
        assert decide(serving.registry.live[run_id])
        raise Unavailable("the disk is full")

    monkeypatch.setattr(serving.registry, "record_if", full)
    peer = await serving.peer()
    assert (await peer.call_refused("worker.register", params))["data"]["name"] == "unavailable"
    assert (await peer.call("worker.register", params))["want"] == "pause"
    run = serving.registry.live[params["run_id"]]
    assert (run.state, run.want) == ("PAUSE", "pause")
