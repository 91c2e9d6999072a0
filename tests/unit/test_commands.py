"""The command that a shim derives from a reply or a notification of the daemon, by the attempt's state."""

from typing import Any

import pytest

from mosaicd.protocol.records.control import Registered
from mosaicd.shim import commands
from mosaicd.shim.commands import PAUSE, RELEASE, RESUME, START, STOP, Command

ASK, FREEZE = Command(PAUSE, pause_mode="cooperative"), Command(PAUSE, pause_mode="freeze")
NEW: dict[str, Any] = {"is_started": False, "has_ended": False, "paused_mode": None}
WORKING = NEW | {"is_started": True}
PAUSED = WORKING | {"paused_mode": "freeze"}
ENDED = WORKING | {"has_ended": True}


@pytest.mark.parametrize(
    ("reply", "state", "command"),
    [
        ({"order": "start", "want": "run"}, NEW, Command(START)),
        ({"order": "attach", "want": "run"}, NEW, None),
        ({"order": "start", "want": "run"}, WORKING, None),
        ({"order": "start", "want": "run"}, ENDED, None),
        (
            {"order": "attach", "want": "pause", "pause_mode": "cooperative"},
            WORKING,
            ASK,
        ),
        ({"order": "attach", "want": "pause"}, WORKING, FREEZE),
        ({"order": "attach", "want": "pause", "pause_mode": "release"}, WORKING, Command(RELEASE)),
        ({"order": "attach", "want": "pause"}, PAUSED, None),
        ({"order": "attach", "want": "run"}, PAUSED, Command(RESUME)),
        ({"order": "attach"}, PAUSED, None),
        ({}, NEW, None),
    ],
)
def test_a_register_reply_starts_pauses_or_resumes_the_attempt(
    reply: dict[str, Any], state: dict[str, Any], command: Command | None
) -> None:
    """A new attempt is started; a started attempt is paused or resumed according to the want in the reply."""
    assert commands.from_reply(Registered.from_json(reply), **state) == command


@pytest.mark.parametrize("state", [NEW, WORKING, PAUSED, ENDED])
@pytest.mark.parametrize("reply", [{"order": "stop"}, {"order": "attach", "want": "stop"}])
def test_a_stop_in_a_reply_applies_in_every_state(reply: dict[str, Any], state: dict[str, Any]) -> None:
    """A reply can stop an attempt in each state; the grace period of the stop wins over the reply's."""
    for stop, grace_s in ((None, 4.0), ({"who": "ada"}, 4.0), ({"who": "ada", "grace_s": 2}, 2.0)):
        registered = Registered.from_json({**reply, "grace_s": 4, "stop": stop})
        command = commands.from_reply(registered, **state)
        assert command is not None and command.name == STOP
        stop_record = command.begin_stop(9.0)
        assert (stop_record.kind, stop_record.who, stop_record.grace_s) == (
            "by_user",
            "ada" if stop else None,
            grace_s,
        )


def test_notifications_become_commands() -> None:
    """A stop without a grace period takes the run's; an unknown notification is ignored."""
    stop = commands.from_notification("stop", {"kind": "stuck", "reason": "still"})
    assert stop is not None and stop.name == STOP
    stop_record = stop.begin_stop(9.0)
    assert (stop_record.kind, stop_record.reason, stop_record.grace_s) == ("stuck", "still", 9.0)
    assert commands.from_notification("pause", {"mode": "release"}) == Command(RELEASE)
    assert commands.from_notification("pause", {"mode": "cooperative"}) == Command(
        PAUSE, pause_mode="cooperative"
    )
    assert commands.from_notification("pause", {}) == FREEZE
    assert commands.from_notification("resume", {}) == Command(RESUME)
    assert commands.from_notification("checkpoint", {}) is None
