"""Facts that a shim reports again because the daemon died between the commit and its reply."""

import logging
from typing import Any

import pytest

from mosaicd.core.event import Event, Kind
from mosaicd.log import Catalogue
from mosaicd.protocol.records.reports import Facts
from mosaicd.rpc.verbs import fact
from tests.harness.trouble import entries
from tests.rpc.serving import AT, Serving


def pause_fact(name: str, second: int) -> dict[str, Any]:
    return {"fact": name, "at": AT + second, "mode": "freeze"}


async def pause_facts(serving: Serving, run_id: str) -> list[tuple[str, float]]:
    events = await serving.history.events(0, 1000, run_id)
    return [(event.kind, event.at - AT) for event in events if event.kind in ("paused", "continued")]


async def report(serving: Serving, run_id: str, *facts: dict[str, Any]) -> dict[str, Any]:
    facts_message = Facts(run_id=run_id, session_token="token", facts=list(facts))
    no_caller: Any = None  # the token identifies the shim; the router has checked it
    return await fact.handle(serving.services, no_caller, facts_message)


async def test_repeated_pause_facts_are_recorded_once(serving: Serving) -> None:
    """However often `paused` and `continued` are reported again, the ledger has each of them once."""
    run_id = (await serving.execute(await serving.add())).run_id
    facts = [
        pause_fact("paused", 1),
        pause_fact("continued", 2),
        pause_fact("paused", 3),
        pause_fact("continued", 4),
    ]
    for known in range(len(facts) + 1):
        for again in range(known):
            reply = await report(serving, run_id, *facts[again:known])
            assert reply == {"accepted": known - again, "rejected": []}
            assert await pause_facts(serving, run_id) == [(f["fact"], f["at"] - AT) for f in facts[:known]]
        if known < len(facts):
            await report(serving, run_id, *facts[max(0, known - 1) : known + 1])
    assert serving.registry.live[run_id].state == "EXEC"


async def test_an_unknown_pause_fact_is_recorded(serving: Serving) -> None:
    """A new pause or continue is recorded although older ones are known; other facts are not affected."""
    run_id = (await serving.execute(await serving.add())).run_id
    await report(serving, run_id, pause_fact("paused", 1), pause_fact("continued", 2))
    await report(serving, run_id, pause_fact("paused", 3), pause_fact("continued", 4))
    assert [at for _, at in await pause_facts(serving, run_id)] == [1, 2, 3, 4]
    ended = {"fact": "exited", "at": AT + 6, "exit_code": 0, "finished_at": AT + 6}
    await report(
        serving, run_id, pause_fact("paused", 3), pause_fact("continued", 4), pause_fact("paused", 5), ended
    )
    assert [at for _, at in await pause_facts(serving, run_id)] == [1, 2, 3, 4, 5]
    assert (serving.registry.live[run_id].exit or {})["exit_code"] == 0
    assert (await serving.history.newest_pause_fact(run_id)) == (Kind.PAUSED, AT + 5)
    assert await serving.history.newest_pause_fact("missing") is None


async def test_a_pause_known_from_a_register_is_not_recorded_again(serving: Serving) -> None:
    """Pauses that the status of a register added to the ledger are ignored among the facts."""
    run_id = (await serving.execute(await serving.add())).run_id
    await serving.registry.record(
        run_id, Event(Kind.PAUSED, AT + 1, "shim"), Event(Kind.CONTINUED, AT + 2, "shim"),
        Event(Kind.PAUSED, AT + 3, "shim", {"mode": "freeze"}),
    )  # fmt: skip
    await report(serving, run_id, pause_fact("continued", 2), pause_fact("paused", 3))
    assert [at for _, at in await pause_facts(serving, run_id)] == [1, 2, 3]


async def test_a_fact_that_comes_too_late_is_no_warning(
    serving: Serving, caplog: pytest.LogCaptureFixture
) -> None:
    """A refused fact is logged as info if the run is in FAULT, and as a warning otherwise."""
    caplog.set_level(logging.INFO)
    run_id = (await serving.execute(await serving.add())).run_id
    nonsense = {"fact": "spawn_failed", "at": AT + 1, "error": "after its start"}
    assert (await report(serving, run_id, nonsense))["rejected"] == ["spawn_failed"]
    await serving.registry.record(
        run_id, Event(Kind.DEADLINE_MISSED, AT + 2, data={"kind": "heartbeat_lost"})
    )
    assert (await report(serving, run_id, pause_fact("paused", 1)))["rejected"] == ["paused"]
    logged = [record for record in caplog.records if hasattr(record, "mosaic_fields")]
    facts = [vars(record)["mosaic_fields"].get("facts") for record in logged]
    refused = list(zip(entries(logged), facts, strict=True))
    assert (Catalogue.FACT_REFUSED, "spawn_failed") in refused
    assert refused[-1] == (Catalogue.FACT_LATE, "paused")
    assert (Catalogue.FACT_REFUSED.level, Catalogue.FACT_LATE.level) == (logging.WARNING, logging.INFO)
