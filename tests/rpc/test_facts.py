"""Facts that are told again after the daemon died between the commit and its reply."""

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


async def tell(serving: Serving, run_id: str, *facts: dict[str, Any]) -> dict[str, Any]:
    told = Facts(run_id=run_id, session_token="token", facts=list(facts))
    no_caller: Any = None  # the token identifies the shim; the router has checked it
    return await fact.handle(serving.services, no_caller, told)


async def test_a_pause_and_a_going_on_are_each_told_once(serving: Serving) -> None:
    """Whichever comes first, and however often the two come again together, the ledger has them once."""
    run_id = (await serving.execute(await serving.add())).run_id
    facts = [
        pause_fact("paused", 1),
        pause_fact("continued", 2),
        pause_fact("paused", 3),
        pause_fact("continued", 4),
    ]
    for known in range(len(facts) + 1):
        for again in range(known):
            reply = await tell(serving, run_id, *facts[again:known])
            assert reply == {"accepted": known - again, "rejected": []}
            assert await pause_facts(serving, run_id) == [(f["fact"], f["at"] - AT) for f in facts[:known]]
        if known < len(facts):
            await tell(serving, run_id, *facts[max(0, known - 1) : known + 1])
    assert serving.registry.live[run_id].state == "EXEC"


async def test_what_was_not_recorded_is_recorded(serving: Serving) -> None:
    """An unknown pair is new, also if an older pair is known; other facts are not affected."""
    run_id = (await serving.execute(await serving.add())).run_id
    await tell(serving, run_id, pause_fact("paused", 1), pause_fact("continued", 2))
    await tell(serving, run_id, pause_fact("paused", 3), pause_fact("continued", 4))
    assert [at for _, at in await pause_facts(serving, run_id)] == [1, 2, 3, 4]
    ended = {"fact": "exited", "at": AT + 6, "exit_code": 0, "finished_at": AT + 6}
    await tell(
        serving, run_id, pause_fact("paused", 3), pause_fact("continued", 4), pause_fact("paused", 5), ended
    )
    assert [at for _, at in await pause_facts(serving, run_id)] == [1, 2, 3, 4, 5]
    assert (serving.registry.live[run_id].exit or {})["exit_code"] == 0
    assert (await serving.history.newest_pause_fact(run_id)) == (Kind.PAUSED, AT + 5)
    assert await serving.history.newest_pause_fact("missing") is None


async def test_a_register_tells_the_newest_pause_first(serving: Serving) -> None:
    """What its status has brought into the ledger already does not come again with the facts."""
    run_id = (await serving.execute(await serving.add())).run_id
    await serving.registry.record(
        run_id, Event(Kind.PAUSED, AT + 1, "shim"), Event(Kind.CONTINUED, AT + 2, "shim"),
        Event(Kind.PAUSED, AT + 3, "shim", {"mode": "freeze"}),
    )  # fmt: skip
    await tell(serving, run_id, pause_fact("continued", 2), pause_fact("paused", 3))
    assert [at for _, at in await pause_facts(serving, run_id)] == [1, 2, 3]


async def test_what_comes_too_late_is_no_warning(serving: Serving, caplog: pytest.LogCaptureFixture) -> None:
    """A run that has just broken may be told to have paused before it: refused, and nobody's mistake; the
    same of a run that works is worth a look."""
    caplog.set_level(logging.INFO)
    run_id = (await serving.execute(await serving.add())).run_id
    nonsense = {"fact": "spawn_failed", "at": AT + 1, "error": "after its start"}
    assert (await tell(serving, run_id, nonsense))["rejected"] == ["spawn_failed"]
    await serving.registry.record(
        run_id, Event(Kind.DEADLINE_MISSED, AT + 2, data={"kind": "heartbeat_lost"})
    )
    assert (await tell(serving, run_id, pause_fact("paused", 1)))["rejected"] == ["paused"]
    about = [record for record in caplog.records if hasattr(record, "mosaic_fields")]
    facts = [vars(record)["mosaic_fields"].get("facts") for record in about]
    refused = list(zip(entries(about), facts, strict=True))
    assert (Catalogue.FACT_REFUSED, "spawn_failed") in refused
    assert refused[-1] == (Catalogue.FACT_LATE, "paused")
    assert (Catalogue.FACT_REFUSED.level, Catalogue.FACT_LATE.level) == (logging.WARNING, logging.INFO)
